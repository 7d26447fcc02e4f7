_base_ = './retinanet_scaleresnet18-w16-pyramid_fpn_1xb8-24e.py'

# The levels stay apart: each map of the FPN gets the maps of all stages that have its stride.
model = dict(
    backbone=dict(scale_pooling=dict(type='mmscale.ScaleLevels')),
    neck=dict(in_channels=[32, 96, 224, 192, 128], add_extra_convs=False),
)
