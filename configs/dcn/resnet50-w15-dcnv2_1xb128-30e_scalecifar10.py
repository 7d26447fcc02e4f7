_base_ = './resnet50-w15-dcnv1_1xb128-30e_scalecifar10.py'

model = dict(backbone=dict(deform=dict(type='mmscale.ModulatedDeformScaleConv')))
