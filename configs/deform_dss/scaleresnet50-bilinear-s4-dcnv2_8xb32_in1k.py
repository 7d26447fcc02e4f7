_base_ = './scaleresnet50-bilinear-s4-dcnv1_8xb32_in1k.py'

model = dict(backbone=dict(deform=dict(type='mmscale.ModulatedDeformScaleConv')))
