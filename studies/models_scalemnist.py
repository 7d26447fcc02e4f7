# Ordinary, deformable, scale-equivariant and rotation-equivariant networks of one size on
# MNIST-Scale: accuracy and equivariance error against scale. The configs' recipe for 6 epochs in
# place of 20, so that three seeds of all models fit on two CPU cores in three hours.
title = 'Models on MNIST-Scale, realization 0, 6 epochs'
seeds = [0, 1, 2]
epochs = 6
equivariance = dict(
    factors=[1, 1.1, 1.5, 2, 2.5, 3], layers=['backbone'], num_images=64, accuracy_images=2000
)

blur = {
    'model.backbone.aa_layer.type': 'mmscale.ScaleBlurPool2d',
    'model.backbone.aa_layer.kernel_size': 5,
}
runs = {
    'CNN': dict(config='configs/cnn/cnn_1xb128-20e_scalemnist.py'),
    'CNN, blur': dict(config='configs/cnn/cnn-blur_1xb128-20e_scalemnist.py'),
    'DSS v1': dict(config='configs/dss/scaleconvnet-s3_1xb128-20e_scalemnist.py'),
    'DSS v1, blur': dict(
        config='configs/dss/scaleconvnet-s3_1xb128-20e_scalemnist.py', options=blur
    ),
    'DSS v2': dict(config='configs/dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py'),
    'DSS v2, blur': dict(
        config='configs/dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py', options=blur
    ),
    'DSS v2, Gaussian': dict(
        config='configs/dss_v2/scaleconvnet-antialiased-s3_1xb128-20e_scalemnist.py'
    ),
    'balanced': dict(config='configs/aa_pyramid/scaleconvnet-balanced_1xb128-20e_scalemnist.py'),
    'CNN + DCNv1': dict(config='configs/dcn/cnn-dcnv1_1xb128-20e_scalemnist.py'),
    'CNN + DCNv2': dict(config='configs/dcn/cnn-dcnv2_1xb128-20e_scalemnist.py'),
    'DSS v2 + DCNv1': dict(
        config='configs/deform_dss/scaleconvnet-bilinear-s3-dcnv1_1xb128-20e_scalemnist.py'
    ),
    'DSS v2 + DCNv2': dict(
        config='configs/deform_dss/scaleconvnet-bilinear-s3-dcnv2_1xb128-20e_scalemnist.py'
    ),
    'DSS v1 + DCNv1': dict(
        config='configs/deform_dss/scaleconvnet-s3-dcnv1_1xb128-20e_scalemnist.py'
    ),
    'DSS v1 + DCNv2': dict(
        config='configs/deform_dss/scaleconvnet-s3-dcnv2_1xb128-20e_scalemnist.py'
    ),
    'SO(2)': dict(config='configs/so2/so2convnet_1xb128-20e_scalemnist.py'),
}
del blur
