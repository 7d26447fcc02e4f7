_base_ = './scaleconvnet-s3-dcnv2_1xb128-20e_scalemnist.py'

model = dict(
    backbone=dict(lift=dict(type='mmscale.BilinearPyramidLift')),
    neck=[
        dict(type='mmscale.ScalePooling', mode='max', align='smallest'),
        dict(type='mmscale.ScaleGlobalPooling', space='max', output_size=2),
    ],
)
