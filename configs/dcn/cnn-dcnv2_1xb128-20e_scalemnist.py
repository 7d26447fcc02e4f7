_base_ = '../deform_dss/scaleconvnet-s3-dcnv2_1xb128-20e_scalemnist.py'

# Deformable convolution is the deformable scale convolution of a single level, the image.
model = dict(backbone=dict(scale_space=dict(num_scales=1)))
