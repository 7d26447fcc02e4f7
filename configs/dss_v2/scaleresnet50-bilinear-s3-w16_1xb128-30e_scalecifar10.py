_base_ = './scaleresnet18-bilinear-s3-w16_1xb128-30e_scalecifar10.py'

model = dict(backbone=dict(depth=50), head=dict(in_channels=512))
