# The branch that predicts offsets has a tenth of the learning rate.
_base_ = './sgd_cosine_bs128_30e.py'

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(conv_offset=dict(lr_mult=0.1))))
