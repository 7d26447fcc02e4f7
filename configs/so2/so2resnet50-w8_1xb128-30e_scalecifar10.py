_base_ = './so2resnet18-w10_1xb128-30e_scalecifar10.py'

# The bottlenecks have more channels: width 8 has the parameters of resnet50-w16.
model = dict(
    backbone=dict(depth=50, stem_channels=8, base_channels=8),
    head=dict(in_channels=3 * 32 * 8),
)
