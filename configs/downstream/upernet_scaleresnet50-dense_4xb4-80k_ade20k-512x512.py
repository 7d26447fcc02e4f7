_base_ = 'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'
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
