_base_ = [
    '../_base_/models/scaleconvnet.py',
    '../_base_/datasets/scale_mnist_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e.py',
    '../_base_/default_runtime.py',
]

# Derivatives up to order 2 have a width of one pixel, as published. The network is that of the
# other families, with pooling, not the published network.
model = dict(
    backbone=dict(
        scale_space=dict(base=2 ** (1 / 3), num_scales=4, zero_scale=0.5),
        lift=dict(type='mmscale.RepeatLift'),
        kernel=dict(type='mmscale.GaussianDerivativeBasis', max_order=2, width=1.0),
    )
)
