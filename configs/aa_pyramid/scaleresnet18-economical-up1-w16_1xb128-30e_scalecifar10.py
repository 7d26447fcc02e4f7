_base_ = [
    '../_base_/models/scaleresnet18-w16_cifar.py',
    '../_base_/datasets/scale_cifar10_bs128.py',
    '../_base_/schedules/sgd_cosine_bs128_30e.py',
    '../_base_/default_runtime.py',
]

# Levels go from twice to half the image's size, an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5, first_level=-1),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    ),
    neck=dict(scale_dropout=0.5),
)
