_base_ = [
    '../_base_/models/scaleresnet50.py',
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/sgd_step_bs256_100e_offset.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        deform=dict(type='mmscale.DeformScaleConv', stages=(False, True, True, True)),
    )
)
