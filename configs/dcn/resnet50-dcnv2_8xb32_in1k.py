_base_ = './resnet50-dcnv1_8xb32_in1k.py'

model = dict(backbone=dict(deform=dict(type='mmscale.ModulatedDeformScaleConv')))
