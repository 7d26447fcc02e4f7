_base_ = './scaleconvnet-economical-up1_1xb128-20e_scalemnist.py'

# Levels go from twice to half the image's size, half an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.5, num_scales=5, first_level=-2),
        aa_layer=dict(kernel_size=7),
    )
)
