_base_ = './scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py'

# Blurred before it is sampled, where the bilinear pyramid aliases.
model = dict(backbone=dict(lift=dict(type='mmscale.GaussianPyramidLift')))
