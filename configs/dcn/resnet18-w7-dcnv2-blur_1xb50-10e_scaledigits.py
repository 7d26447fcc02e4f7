_base_ = './resnet18-w7-dcnv2_1xb50-10e_scaledigits.py'

# The network has a low-pass before each stride.
model = dict(backbone=dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)))
