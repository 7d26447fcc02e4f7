_base_ = './scaleresnet50-bilinear-s4_8xb32_in1k.py'

# Blurred before it is sampled, where the bilinear pyramid aliases.
model = dict(backbone=dict(lift=dict(type='mmscale.GaussianPyramidLift')))
