_base_ = './fcn_scaleresnet18-w16-d8-blur_1xb8-24e.py'

# Once, half and a quarter of the size, and the maximum over the three at each stride.
model = dict(backbone=dict(scale_space=dict(num_scales=3)))
