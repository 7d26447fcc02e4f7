_base_ = './cnn_1xb128-20e_scalemnist.py'

# Whenever an image is read, a factor of its own, log-uniform from a half to twice the size.
train_dataloader = dict(
    dataset=dict(pipeline=[dict(type='mmscale.RandomRescale'), dict(type='PackInputs')])
)
