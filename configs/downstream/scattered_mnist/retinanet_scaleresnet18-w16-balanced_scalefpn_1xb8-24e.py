_base_ = './retinanet_scaleresnet18-w16-pyramid_scalefpn_1xb8-24e.py'

# Levels and maps of the neck lie half an octave apart, down to a quarter of the size.
scale_space = dict(base=2.0**0.5, num_scales=5, zero_scale=1.0)
strides = [8 * 2 ** (n / 2) for n in range(9)]
model = dict(
    backbone=dict(scale_space=scale_space, aa_layer=dict(kernel_size=7)),
    neck=dict(scale_space=scale_space, num_outs=len(strides), strides=strides),
    bbox_head=dict(anchor_generator=dict(strides=strides)),
)
