_base_ = './cnn-blur_1xb128-20e_scalemnist.py'

# Each read of an image draws a factor log-uniformly from 0.5 to 2. As in the making of the dataset,
# there is no low-pass, and the fixed point is the same.
rescale = dict(type='mmscale.RandomRescale', center=(14.5, 14.5), antialias=False)
train_dataloader = dict(dataset=dict(pipeline=[rescale, dict(type='PackInputs')]))
