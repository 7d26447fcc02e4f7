_base_ = [
    '../_base_/models/scaleresnet18-w16_cifar.py',
    '../_base_/datasets/scale_cifar10_bs128.py',
    '../_base_/schedules/sgd_cosine_bs128_30e.py',
    '../_base_/default_runtime.py',
]
