_base_ = './resnet50-dcnv1_8xb32_in1k.py'

# The network has a low-pass before each stride.
model = dict(backbone=dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)))
