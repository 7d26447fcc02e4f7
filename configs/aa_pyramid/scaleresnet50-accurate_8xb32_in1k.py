_base_ = './scaleresnet50-economical_8xb32_in1k.py'

# Levels go from the image's own size to a quarter of it, a quarter of an octave apart.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.25, num_scales=9),
        aa_layer=dict(_delete_=True, type='mmscale.ScaleBlurPool2d', variance=3.0),
    )
)
