_base_ = './scaleresnet18-economical-up1-w16_1xb128-30e_scalecifar10.py'

# Levels go from twice to half the image's size, a quarter of an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.25, num_scales=9, first_level=-4),
        aa_layer=dict(_delete_=True, type='mmscale.ScaleBlurPool2d', variance=3.0),
    )
)
