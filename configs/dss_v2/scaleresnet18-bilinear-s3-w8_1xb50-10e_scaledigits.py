_base_ = [
    '../_base_/models/scaleresnet18_digits.py',
    '../_base_/datasets/scale_digits_bs50.py',
    '../_base_/schedules/adam_onecycle_bs50_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(lift=dict(type='mmscale.BilinearPyramidLift')),
    neck=[
        dict(type='mmscale.ScalePooling', mode='max', align='smallest'),
        dict(type='mmscale.ScaleGlobalPooling', space='max'),
    ],
)
