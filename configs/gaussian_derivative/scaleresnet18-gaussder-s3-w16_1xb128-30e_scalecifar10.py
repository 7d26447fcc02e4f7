_base_ = [
    '../_base_/models/scaleresnet18-w16_cifar.py',
    '../_base_/datasets/scale_cifar10_bs128.py',
    '../_base_/schedules/sgd_cosine_bs128_30e.py',
    '../_base_/default_runtime.py',
]

# Six functions replace nine taps, so there are two thirds of the parameters.
model = dict(
    backbone=dict(
        scale_space=dict(base=2**0.5),
        lift=dict(type='mmscale.RepeatLift'),
        kernel=dict(type='mmscale.GaussianDerivativeBasis', max_order=2, width=0.7, truncate=2.0),
    )
)
