_base_ = './scaleresnet18-bilinear-s3-w16_1xb128-30e_scalecifar10.py'

# The image is blurred before it is sampled; the bilinear pyramid aliases.
model = dict(backbone=dict(lift=dict(type='mmscale.GaussianPyramidLift')))
