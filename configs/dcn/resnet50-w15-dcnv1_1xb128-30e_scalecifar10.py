_base_ = '../deform_dss/scaleresnet50-s3-w15-dcnv1_1xb128-30e_scalecifar10.py'

# Deformable convolution is the deformable scale convolution of a single level, the image.
model = dict(backbone=dict(scale_space=dict(num_scales=1)))
