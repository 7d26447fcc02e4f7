_base_ = [
    '../_base_/models/scaleconvnet.py',
    '../_base_/datasets/scale_mnist_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(scale_space=dict(num_scales=3), lift=dict(type='mmscale.BilinearPyramidLift')),
    neck=[
        dict(type='mmscale.ScalePooling', mode='max', align='smallest'),
        dict(type='mmscale.ScaleGlobalPooling', space='max', output_size=2),
    ],
)
