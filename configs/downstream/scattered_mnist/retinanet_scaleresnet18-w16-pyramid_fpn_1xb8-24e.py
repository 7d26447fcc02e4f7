_base_ = './retinanet_scaleresnet18-w16-blur_fpn_1xb8-24e.py'

# Once, half and a quarter of the size, and the maximum over the three at each stride.
model = dict(backbone=dict(scale_space=dict(num_scales=3)))
