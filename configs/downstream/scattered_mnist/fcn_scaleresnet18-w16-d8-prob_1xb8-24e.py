_base_ = './fcn_scaleresnet18-w16-d8-pyramid_1xb8-24e.py'

# Each level predicts, and the probabilities of the levels are averaged at each pixel.
scale_space = dict(base=2.0, num_scales=3, zero_scale=0.5)
head = dict(type='mmscale.ScaleDecodeHead', scale_space=scale_space)
model = dict(
    backbone=dict(scale_pooling=None), decode_head=dict(**head), auxiliary_head=dict(**head)
)
