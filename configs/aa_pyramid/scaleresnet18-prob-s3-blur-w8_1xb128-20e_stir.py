_base_ = [
    '../_base_/models/scaleresnet18_digits.py',
    '../_base_/datasets/stir_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e.py',
    '../_base_/default_runtime.py',
]

# Levels go from the image's size to a quarter, an octave apart; their probabilities are averaged.
model = dict(
    backbone=dict(
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    ),
    neck=dict(scale='none'),
    head=dict(type='mmscale.ScaleClsHead', pool='prob', scale_dropout=0.5),
)
