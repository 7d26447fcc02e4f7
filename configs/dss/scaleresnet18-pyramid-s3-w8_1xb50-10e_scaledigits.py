_base_ = './scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'

# The levels have twice, once and half the image's size. On the finest level, the kernels of large
# digits see small digits.
model = dict(
    backbone=dict(scale_space=dict(first_level=-1), lift=dict(type='mmscale.GaussianPyramidLift'))
)
