_base_ = [
    '../_base_/models/scaleresnet18_digits.py',
    '../_base_/datasets/scale_digits_bs50.py',
    '../_base_/schedules/adam_onecycle_bs50_10e_offset.py',
    '../_base_/default_runtime.py',
]

# Width 7 makes up for most of the parameters of the offset branches.
model = dict(
    backbone=dict(
        stem_channels=7,
        base_channels=7,
        deform=dict(type='mmscale.DeformScaleConv', stages=(False, True, True, True)),
    ),
    head=dict(in_channels=56),
)
