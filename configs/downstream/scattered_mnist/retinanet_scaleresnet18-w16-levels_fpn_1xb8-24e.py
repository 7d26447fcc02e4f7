_base_ = './retinanet_scaleresnet18-w16-pyramid_fpn_1xb8-24e.py'

# The same levels, kept apart: each map of the FPN has what all stages have at its stride.
model = dict(
    backbone=dict(scale_pooling=dict(type='mmscale.ScaleLevels')),
    neck=dict(in_channels=[32, 96, 224, 192, 128], add_extra_convs=False),
)
