_base_ = './retinanet_scaleresnet18-w16-pyramid_fpn_1xb8-24e.py'

# The same levels, each through the same FPN: the map of an object is that of its size.
model = dict(
    backbone=dict(scale_pooling=None),
    neck=dict(type='mmscale.ScaleFPN', scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5)),
)
