_base_ = './scaleconvnet-deep-balanced-up1_1xb128-20e_scalemnist.py'

# Whenever an image is read, a factor of its own, log-uniform from a half to twice the size. As the
# dataset was made: without a low-pass, about the same fixed point.
rescale = dict(type='mmscale.RandomRescale', center=(14.5, 14.5), antialias=False)
train_dataloader = dict(dataset=dict(pipeline=[rescale, dict(type='PackInputs')]))
