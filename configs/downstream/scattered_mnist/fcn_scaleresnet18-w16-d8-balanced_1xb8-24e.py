_base_ = './fcn_r18-w16-d8_1xb8-24e.py'
custom_imports = dict(imports=['mmscale'])

# Levels lie half an octave apart, down to a quarter of the size.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNetV1c',
        scale_space=dict(base=2.0**0.5, num_scales=5, zero_scale=1.0),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=7),
        scale_pooling=dict(scale_dropout=0.5),
    )
)
