_base_ = './scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'

# Levels of twice, once and half the image's size: the finest lets the kernels that know large
# digits see small ones.
model = dict(
    backbone=dict(scale_space=dict(first_level=-1), lift=dict(type='mmscale.GaussianPyramidLift'))
)
