_base_ = './scaleresnet50-bilinear-s4_8xb32_in1k.py'

# The image is blurred before it is sampled; the bilinear pyramid aliases.
model = dict(backbone=dict(lift=dict(type='mmscale.GaussianPyramidLift')))
