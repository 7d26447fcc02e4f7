# A tenth of the learning rate for the branch that predicts offsets.
_base_ = './sgd_cosine_bs128_30e.py'

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(conv_offset=dict(lr_mult=0.1))))
