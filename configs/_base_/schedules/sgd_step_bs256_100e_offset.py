# A tenth of the learning rate for the branch that predicts offsets.
_base_ = './sgd_step_bs256_100e.py'

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(conv_offset=dict(lr_mult=0.1))))
