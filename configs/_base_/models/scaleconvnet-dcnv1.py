_base_ = './scaleconvnet.py'

# Offset branches with their 7x7 kernels are large: the widths make up for their parameters.
model = dict(
    backbone=dict(
        channels=(20, 39, 59),
        deform=dict(type='mmscale.DeformScaleConv', stages=(False, True, True)),
    ),
    head=dict(in_channels=59 * 4),
)
