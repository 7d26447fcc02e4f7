_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmscale'])

# Levels lie half an octave apart, down to a quarter of the size.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet',
        depth=18,
        init_cfg=dict(checkpoint='torchvision://resnet18'),
        scale_space=dict(base=2.0**0.5, num_scales=5, zero_scale=1.0),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=7),
        scale_pooling=dict(scale_dropout=0.5),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
