_base_ = '../dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10.py'

# From twice to half the image's size, a quarter of an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.25, num_scales=9, zero_scale=0.5, first_level=-4),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', variance=3.0),
    ),
    neck=dict(scale_dropout=0.5),
)
