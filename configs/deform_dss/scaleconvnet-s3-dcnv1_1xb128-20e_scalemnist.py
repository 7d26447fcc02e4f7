_base_ = [
    '../_base_/models/scaleconvnet-dcnv1.py',
    '../_base_/datasets/scale_mnist_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e_offset.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(scale_space=dict(num_scales=3)))
