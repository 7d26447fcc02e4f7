_base_ = './resnet18-w15-dcnv1_1xb128-30e_scalecifar10.py'

model = dict(backbone=dict(depth=50), head=dict(in_channels=480))
