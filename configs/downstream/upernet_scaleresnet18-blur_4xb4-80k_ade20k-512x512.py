_base_ = 'mmseg::upernet/upernet_r18_4xb4-80k_ade20k-512x512.py'
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
