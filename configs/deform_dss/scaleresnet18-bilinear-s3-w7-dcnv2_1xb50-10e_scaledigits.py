_base_ = './scaleresnet18-bilinear-s3-w7-dcnv1_1xb50-10e_scaledigits.py'

model = dict(backbone=dict(deform=dict(type='mmscale.ModulatedDeformScaleConv')))
