_base_ = '../dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10.py'

# From the image's size to a quarter of it, an octave apart; a gate weighs what the levels answer.
model = dict(
    backbone=dict(
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    ),
    neck=dict(scale='none'),
    head=dict(type='mmscale.ScaleClsHead', pool='gate', scale_dropout=0.5),
)
