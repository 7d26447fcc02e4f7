_base_ = [
    '../_base_/models/scaleresnet18-w16_cifar.py',
    '../_base_/datasets/scale_cifar10_bs128.py',
    '../_base_/schedules/sgd_cosine_bs128_30e.py',
    '../_base_/default_runtime.py',
]

# Levels go from the image's size to a quarter, an octave apart; a gate weights their answers.
model = dict(
    backbone=dict(
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    ),
    neck=dict(scale='none'),
    head=dict(type='mmscale.ScaleClsHead', pool='gate', scale_dropout=0.5),
)
