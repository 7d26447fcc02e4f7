_base_ = [
    '../_base_/models/scaleresnet18_digits.py',
    '../_base_/datasets/scale_digits_bs50.py',
    '../_base_/schedules/adam_onecycle_bs50_10e.py',
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
