_base_ = './fcn_scaleresnet18-w16-d8-blur_1xb8-24e.py'

# The levels have once, half and a quarter of the size; each stride takes their maximum.
model = dict(backbone=dict(scale_space=dict(num_scales=3)))
