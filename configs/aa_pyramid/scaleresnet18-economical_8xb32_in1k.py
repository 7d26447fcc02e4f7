_base_ = './scaleresnet50-economical_8xb32_in1k.py'

model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
