_base_ = './scaleresnet18-bilinear-s3-w8_1xb50-10e_scaledigits.py'

# Blurred before it is sampled, where the bilinear pyramid aliases.
model = dict(backbone=dict(lift=dict(type='mmscale.GaussianPyramidLift')))
