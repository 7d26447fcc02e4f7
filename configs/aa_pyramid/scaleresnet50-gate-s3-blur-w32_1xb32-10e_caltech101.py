_base_ = [
    '../_base_/models/resnet50-w32_caltech101.py',
    '../_base_/datasets/caltech101_bs32.py',
    '../_base_/schedules/sgd_cosine_bs32_10e.py',
    '../_base_/default_runtime.py',
]

# Levels go from the image's size to a quarter, an octave apart; a gate weights their answers.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet',
        scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    ),
    neck=dict(_delete_=True, type='mmscale.ScaleGlobalPooling', scale='none'),
    head=dict(type='mmscale.ScaleClsHead', pool='gate', scale_dropout=0.5),
)
