_base_ = 'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmscale'])

# DSS v1 has three levels of base 2 at full resolution.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNetV1c',
        scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianLift'),
        scale_pooling=dict(),
    )
)
