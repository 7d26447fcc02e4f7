_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmscale'])

# DSS v1 has three levels of base 2 at full resolution.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet',
        scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianLift'),
        scale_pooling=dict(),
    )
)
