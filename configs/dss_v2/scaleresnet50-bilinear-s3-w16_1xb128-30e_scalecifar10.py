_base_ = '../dss/scaleresnet50-s3-w16_1xb128-30e_scalecifar10.py'

model = dict(
    backbone=dict(lift=dict(type='mmscale.BilinearPyramidLift')),
    neck=[
        dict(type='mmscale.ScalePooling', mode='max', align='smallest'),
        dict(type='GlobalAveragePooling'),
    ],
)
