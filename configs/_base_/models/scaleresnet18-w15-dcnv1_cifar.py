_base_ = './scaleresnet18_cifar.py'

# Width 15 makes up for the parameters of the offset branches.
model = dict(
    backbone=dict(
        scale_space=dict(num_scales=3),
        stem_channels=15,
        base_channels=15,
        deform=dict(type='mmscale.DeformScaleConv', stages=(False, True, True, True)),
    ),
    head=dict(in_channels=120),
)
