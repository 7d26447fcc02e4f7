# The cycle is that of adam_onecycle_bs50_10e.py, but the branch that predicts offsets has a tenth
# of the learning rate. OneCycleLR would give all parameters one rate. Two cosines, relative to each
# parameter's own rate, follow its curve: three epochs up from 1/25 of the peak, seven down.
_base_ = './adam_onecycle_bs50_10e.py'

optim_wrapper = dict(
    optimizer=dict(lr=0.01 / 25),
    paramwise_cfg=dict(custom_keys=dict(conv_offset=dict(lr_mult=0.1))),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', begin=0, end=3, eta_min_ratio=25.0, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=3, end=10, eta_min_ratio=1e-4, convert_to_iter_based=True),
]
