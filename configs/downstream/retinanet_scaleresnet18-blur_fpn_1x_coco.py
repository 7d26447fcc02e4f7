_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['mmscale'])

# The ordinary backbone has a low-pass before each stride.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet',
        scale_space=dict(base=2.0, num_scales=1, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
        scale_pooling=dict(),
    )
)
