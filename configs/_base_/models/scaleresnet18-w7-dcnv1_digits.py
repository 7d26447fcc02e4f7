_base_ = './scaleresnet18_digits.py'

# Width 7 makes up for most of the parameters of the offset branches.
model = dict(
    backbone=dict(
        stem_channels=7,
        base_channels=7,
        deform=dict(type='mmscale.DeformScaleConv', stages=(False, True, True, True)),
    ),
    head=dict(in_channels=56),
)
