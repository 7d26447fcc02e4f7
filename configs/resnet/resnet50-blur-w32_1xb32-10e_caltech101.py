_base_ = './resnet50-w32_1xb32-10e_caltech101.py'

# The same network, as a ScaleResNet of one level, has a low-pass before each stride.
model = dict(
    backbone=dict(
        type='mmscale.ScaleResNet',
        scale_space=dict(num_scales=1),
        lift=dict(type='mmscale.GaussianLift'),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    )
)
