_base_ = './scaleresnet50-bilinear-s3-w16_1xb128-30e_scalecifar10.py'

# Blurred before it is sampled, where the bilinear pyramid aliases.
model = dict(backbone=dict(lift=dict(type='mmscale.GaussianPyramidLift')))
