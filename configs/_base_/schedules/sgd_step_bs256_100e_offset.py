# The branch that predicts offsets has a tenth of the learning rate.
_base_ = './sgd_step_bs256_100e.py'

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(conv_offset=dict(lr_mult=0.1))))
