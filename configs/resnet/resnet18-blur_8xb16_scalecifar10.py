_base_ = './resnet18_8xb16_scalecifar10.py'

# The same network, as a ScaleResNet of one level, has a low-pass before each stride.
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmscale.ScaleResNet_CIFAR',
        depth=18,
        scale_space=dict(num_scales=1),
        lift=dict(type='mmscale.GaussianLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    )
)
