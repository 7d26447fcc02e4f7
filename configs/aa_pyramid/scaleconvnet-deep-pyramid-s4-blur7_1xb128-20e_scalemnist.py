_base_ = './scaleconvnet-deep-balanced-up1_1xb128-20e_scalemnist.py'

# The finest level, twice the image's size, is left out: it takes half of the cost.
model = dict(backbone=dict(scale_space=dict(num_scales=4, first_level=-1)))
