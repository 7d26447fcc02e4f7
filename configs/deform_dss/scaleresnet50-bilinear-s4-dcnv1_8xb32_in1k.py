_base_ = './scaleresnet50-s4-dcnv1_8xb32_in1k.py'

model = dict(
    backbone=dict(lift=dict(type='mmscale.BilinearPyramidLift')),
    neck=[
        dict(type='mmscale.ScalePooling', mode='max', align='smallest'),
        dict(type='GlobalAveragePooling'),
    ],
)
