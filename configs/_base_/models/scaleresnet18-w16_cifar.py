# The network has three levels and a quarter of the width.
_base_ = './scaleresnet18_cifar.py'

model = dict(
    backbone=dict(scale_space=dict(num_scales=3), stem_channels=16, base_channels=16),
    head=dict(in_channels=128),
)
