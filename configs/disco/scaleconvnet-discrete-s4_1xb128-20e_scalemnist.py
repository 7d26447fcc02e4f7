_base_ = [
    '../_base_/models/scaleconvnet.py',
    '../_base_/datasets/scale_mnist_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e.py',
    '../_base_/default_runtime.py',
]

# Scales and functions are those of the published network. That network first enlarges the image
# twofold, and pools by means of 2x2 pixels. Here, windows of maxima grow with the level.
model = dict(
    backbone=dict(
        scale_space=dict(base=2 ** (1 / 3), num_scales=4, zero_scale=0.5),
        lift=dict(type='mmscale.RepeatLift'),
        kernel=dict(
            type='mmscale.DiscreteBasis',
            effective_size=7,
            images='white',
            max_order=4,
            mult=1.5,
            width=1.9,
        ),
    )
)
