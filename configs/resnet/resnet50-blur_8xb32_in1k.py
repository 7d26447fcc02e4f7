_base_ = [
    '../_base_/models/scaleresnet50.py',
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/sgd_step_bs256_100e.py',
    '../_base_/default_runtime.py',
]

# MMPretrain's ResNet-50, as a ScaleResNet of one level, has a low-pass before each stride.
model = dict(
    backbone=dict(
        scale_space=dict(num_scales=1),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    )
)
