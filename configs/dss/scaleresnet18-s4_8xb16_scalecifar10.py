_base_ = [
    '../_base_/models/scaleresnet18_cifar.py',
    '../_base_/datasets/scale_cifar10_bs16.py',
    '../_base_/schedules/sgd_step_bs128_200e.py',
    '../_base_/default_runtime.py',
]
