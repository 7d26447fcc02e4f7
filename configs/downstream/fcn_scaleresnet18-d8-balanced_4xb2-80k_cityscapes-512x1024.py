_base_ = 'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'
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
