_base_ = './scaleresnet50-economical_8xb32_in1k.py'

# Levels go from the image's own size to a quarter of it, half an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.5, num_scales=5, zero_scale=1.0),
        aa_layer=dict(kernel_size=7),
    )
)
