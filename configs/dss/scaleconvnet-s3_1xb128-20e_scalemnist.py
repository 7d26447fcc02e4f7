_base_ = '../cnn/cnn_1xb128-20e_scalemnist.py'

model = dict(backbone=dict(scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5)))
