_base_ = './scaleconvnet-s3_1xb128-20e_scalemnist.py'

# The levels have 2, 1.41, 1, 0.71 and 0.5 times the image's size. On the two levels finer than the
# image, the kernels of large digits see small digits.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.5, first_level=-2, num_scales=5),
        lift=dict(type='mmscale.GaussianPyramidLift'),
    )
)
