_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['mmscale'])

scale_space = dict(base=2.0, num_scales=3, zero_scale=0.5)
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet',
        scale_space=scale_space,
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    ),
    neck=dict(type='mmscale.ScaleFPN', scale_space=scale_space),
)
