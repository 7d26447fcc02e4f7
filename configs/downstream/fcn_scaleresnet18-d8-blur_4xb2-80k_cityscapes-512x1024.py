_base_ = 'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmscale'])

# The ordinary backbone has a low-pass before each stride.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNetV1c',
        scale_space=dict(base=2.0, num_scales=1, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
        scale_pooling=dict(),
    )
)
