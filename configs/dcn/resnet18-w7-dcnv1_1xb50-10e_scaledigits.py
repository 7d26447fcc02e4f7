_base_ = '../deform_dss/scaleresnet18-s3-w7-dcnv1_1xb50-10e_scaledigits.py'

# Deformable convolution is the deformable scale convolution of a single level, the image.
model = dict(backbone=dict(scale_space=dict(num_scales=1)))
