_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['mmscale'])

# Levels and maps of the neck lie half an octave apart, down to a quarter of the size.
scale_space = dict(base=2.0**0.5, num_scales=5, zero_scale=1.0)
strides = [8 * 2 ** (n / 2) for n in range(9)]
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet',
        scale_space=scale_space,
        lift=dict(type='mmscale.GaussianPyramidLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=7),
    ),
    neck=dict(
        type='mmscale.ScaleFPN', scale_space=scale_space, num_outs=len(strides), strides=strides
    ),
    bbox_head=dict(anchor_generator=dict(strides=strides)),
)
