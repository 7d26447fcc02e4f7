_base_ = [
    '../_base_/models/scaleresnet18_cifar.py',
    '../_base_/datasets/scale_cifar10_bs128.py',
    '../_base_/schedules/sgd_cosine_bs128_30e_offset.py',
    '../_base_/default_runtime.py',
]

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
