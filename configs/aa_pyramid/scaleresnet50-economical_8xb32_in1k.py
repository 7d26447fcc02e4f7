_base_ = '../dss/scaleresnet50-s4_8xb32_in1k.py'

# From the image's own size to a quarter of it, an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    ),
    neck=dict(scale_dropout=0.5),
)
