_base_ = [
    '../_base_/models/scaleresnet50.py',
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/sgd_step_bs256_100e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(lift=dict(type='mmscale.BilinearPyramidLift')),
    neck=[
        dict(type='mmscale.ScalePooling', mode='max', align='smallest'),
        dict(type='GlobalAveragePooling'),
    ],
)
