_base_ = './scaleconvnet-deep-pyramid-s4-blur7_1xb128-20e_scalemnist.py'

model = dict(backbone=dict(channels=(32, 80, 128)), head=dict(in_channels=128 * 4))

train_cfg = dict(max_epochs=40)
param_scheduler = dict(total_steps=40)
