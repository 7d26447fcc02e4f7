_base_ = './scaleconvnet-balanced-up1_1xb128-20e_scalemnist.py'

# Two layers of 3x3 taps replace each layer of 7x7: three fifths of the parameters, twice as deep.
model = dict(
    backbone=dict(channels=(32, 64, 96), num_convs=2, kernel_size=3),
    head=dict(in_channels=96 * 4),
)
