_base_ = [
    '../_base_/models/scaleresnet18-w16_cifar.py',
    '../_base_/datasets/scale_cifar10_bs128.py',
    '../_base_/schedules/sgd_cosine_bs128_30e.py',
    '../_base_/default_runtime.py',
]

# Scales, width and support are those of the published network for STL-10.
model = dict(
    backbone=dict(
        scale_space=dict(base=2**0.5),
        lift=dict(type='mmscale.RepeatLift'),
        kernel=dict(type='mmscale.HermiteBasis', size=7, effective_size=3, width=0.9),
    )
)
