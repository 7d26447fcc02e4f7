_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmscale'])

# DSS v1 has three levels of base 2 at full resolution.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet',
        depth=18,
        init_cfg=dict(checkpoint='torchvision://resnet18'),
        scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianLift'),
        scale_pooling=dict(),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
