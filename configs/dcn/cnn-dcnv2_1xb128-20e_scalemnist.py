_base_ = './cnn-dcnv1_1xb128-20e_scalemnist.py'

model = dict(
    backbone=dict(
        channels=(16, 32, 48),
        deform=dict(type='mmscale.ModulatedDeformScaleConv'),
    ),
    head=dict(in_channels=48 * 4),
)
