_base_ = '../dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'

model = dict(
    backbone=dict(lift=dict(type='mmscale.BilinearPyramidLift')),
    neck=[
        dict(type='mmscale.ScalePooling', mode='max', align='smallest'),
        dict(type='mmscale.ScaleGlobalPooling', space='max'),
    ],
)
