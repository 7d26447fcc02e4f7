_base_ = './retinanet_scaleresnet18-w16-pyramid_fpn_1xb8-24e.py'

# Each level passes through the same FPN: the size of an object determines its map.
model = dict(
    backbone=dict(scale_pooling=None),
    neck=dict(type='mmscale.ScaleFPN', scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5)),
)
