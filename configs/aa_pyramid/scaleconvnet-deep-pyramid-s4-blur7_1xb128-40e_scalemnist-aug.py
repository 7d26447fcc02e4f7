_base_ = './scaleconvnet-deep-pyramid-s4-blur7_1xb128-20e_scalemnist.py'

# Each read of an image draws a factor log-uniformly from 0.5 to 2. As in the making of the dataset,
# there is no low-pass, and the fixed point is the same.
rescale = dict(type='mmscale.RandomRescale', center=(14.5, 14.5), antialias=False)
train_dataloader = dict(dataset=dict(pipeline=[rescale, dict(type='PackInputs')]))

# Each epoch draws new factors, so more epochs bring new images.
train_cfg = dict(max_epochs=40)
param_scheduler = dict(total_steps=40)
