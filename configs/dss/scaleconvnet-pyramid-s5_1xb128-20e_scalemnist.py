_base_ = './scaleconvnet-s3_1xb128-20e_scalemnist.py'

# Levels of 2, 1.41, 1, 0.71 and 0.5 times the image's size: the two that are finer than the image
# let the kernels that know large digits see small ones.
model = dict(
    backbone=dict(
        scale_space=dict(base=2.0**0.5, first_level=-2, num_scales=5),
        lift=dict(type='mmscale.GaussianPyramidLift'),
    )
)
