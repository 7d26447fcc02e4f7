_base_ = './cnn_1xb128-20e_scalemnist.py'

# The network has a low-pass before each stride.
model = dict(backbone=dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)))
