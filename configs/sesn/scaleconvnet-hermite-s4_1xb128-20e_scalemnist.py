_base_ = [
    '../_base_/models/scaleconvnet.py',
    '../_base_/datasets/scale_mnist_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e.py',
    '../_base_/default_runtime.py',
]

# Scales, widths, orders and supports are those of the published network for 56x56 pixels with
# augmentation. There pooling windows have 2x2 pixels at every level; here they grow with the level.
# There, batch norm and one pooling follow the projection; here the projection comes last.
model = dict(
    backbone=dict(
        scale_space=dict(base=2 ** (1 / 3), num_scales=4, zero_scale=0.5),
        lift=dict(type='mmscale.RepeatLift'),
        kernel=dict(
            type='mmscale.HermiteBasis',
            size=13,
            effective_size=7,
            max_order=4,
            mult=1.4,
            width=1.5,
        ),
    )
)
