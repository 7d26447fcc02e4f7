_base_ = '../deform_dss/scaleresnet50-s4-dcnv1_8xb32_in1k.py'

# Deformable convolution is the deformable scale convolution of a single level, the image.
model = dict(backbone=dict(scale_space=dict(num_scales=1)))
