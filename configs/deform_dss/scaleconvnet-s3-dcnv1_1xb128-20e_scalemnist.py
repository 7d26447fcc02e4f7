_base_ = [
    '../_base_/models/scaleconvnet.py',
    '../_base_/datasets/scale_mnist_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e_offset.py',
    '../_base_/default_runtime.py',
]

# Offset branches with their 7x7 kernels are large: the widths make up for their parameters.
model = dict(
    backbone=dict(
        scale_space=dict(num_scales=3),
        channels=(20, 39, 59),
        deform=dict(type='mmscale.DeformScaleConv', stages=(False, True, True)),
    ),
    head=dict(in_channels=59 * 4),
)
