_base_ = './retinanet_scaleresnet18-w16-blur_fpn_1xb8-24e.py'

# The levels have once, half and a quarter of the size; each stride takes their maximum.
model = dict(backbone=dict(scale_space=dict(num_scales=3)))
