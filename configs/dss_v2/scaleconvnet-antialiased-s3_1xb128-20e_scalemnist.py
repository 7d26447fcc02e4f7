_base_ = './scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py'

# The image is blurred before it is sampled; the bilinear pyramid aliases.
model = dict(backbone=dict(lift=dict(type='mmscale.GaussianPyramidLift')))
