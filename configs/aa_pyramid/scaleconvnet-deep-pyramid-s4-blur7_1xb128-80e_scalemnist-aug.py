_base_ = './scaleconvnet-deep-pyramid-s4-blur7_1xb128-40e_scalemnist-aug.py'

train_cfg = dict(max_epochs=80)
param_scheduler = dict(total_steps=80)
