_base_ = './scaleresnet18-bilinear-s3-w8_1xb50-10e_scaledigits.py'

# The image is blurred before it is sampled; the bilinear pyramid aliases.
model = dict(backbone=dict(lift=dict(type='mmscale.GaussianPyramidLift')))
