_base_ = './resnet18-w8_1xb128-20e_stir.py'

# The same network, as a ScaleResNet of one level, has a low-pass before each stride.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet_CIFAR',
        scale_space=dict(num_scales=1),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    )
)
