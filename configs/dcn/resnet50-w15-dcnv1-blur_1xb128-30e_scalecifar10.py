_base_ = './resnet50-w15-dcnv1_1xb128-30e_scalecifar10.py'

# The network has a low-pass before each stride.
model = dict(backbone=dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)))
