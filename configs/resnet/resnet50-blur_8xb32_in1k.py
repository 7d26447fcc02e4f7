_base_ = '../dss/scaleresnet50-s4_8xb32_in1k.py'

# MMPretrain's ResNet-50 (a ScaleResNet of one level is one) with a low-pass before each stride.
model = dict(
    backbone=dict(
        scale_space=dict(num_scales=1),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    )
)
