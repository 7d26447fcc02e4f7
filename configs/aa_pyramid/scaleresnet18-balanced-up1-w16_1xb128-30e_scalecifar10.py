_base_ = './scaleresnet18-economical-up1-w16_1xb128-30e_scalecifar10.py'

# Levels go from twice to half the image's size, half an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.5, num_scales=5, first_level=-2),
        aa_layer=dict(kernel_size=7),
    )
)
