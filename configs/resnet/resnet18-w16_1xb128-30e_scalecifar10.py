_base_ = [
    '../_base_/models/resnet18_cifar.py',
    '../_base_/datasets/scale_cifar10_bs128.py',
    '../_base_/schedules/sgd_cosine_bs128_30e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(stem_channels=16, base_channels=16),
    head=dict(in_channels=128),
)
