_base_ = [
    '../_base_/models/so2convnet.py',
    '../_base_/datasets/scale_mnist_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e.py',
    '../_base_/default_runtime.py',
]
