_base_ = '../dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'

# From twice to half the image's size, half an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.5, num_scales=5, zero_scale=0.5, first_level=-2),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=7),
    ),
    neck=dict(scale_dropout=0.5),
)
