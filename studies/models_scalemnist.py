# Ordinary, deformable, scale-equivariant and rotation-equivariant networks of one size on
# MNIST-Scale: accuracy and equivariance error against scale. The configs' recipe for 6 epochs in
# place of 20, so that three seeds of all models fit on two CPU cores in three and a half hours.
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
    'CNN': dict(config='configs/cnn/cnn_1xb128-20e_scalemnist.py', style=dict(color='black')),
    'CNN, blur': dict(
        config='configs/cnn/cnn-blur_1xb128-20e_scalemnist.py',
        style=dict(color='black', ls='--'),
    ),
    'DSS v1': dict(
        config='configs/dss/scaleconvnet-s3_1xb128-20e_scalemnist.py', style=dict(color='tab:blue')
    ),
    'DSS v1, blur': dict(
        config='configs/dss/scaleconvnet-s3_1xb128-20e_scalemnist.py',
        options=blur,
        style=dict(color='tab:blue', ls='--'),
    ),
    'DSS v2': dict(
        config='configs/dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py',
        style=dict(color='tab:green'),
    ),
    'DSS v2, blur': dict(
        config='configs/dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py',
        options=blur,
        style=dict(color='tab:green', ls='--'),
    ),
    'DSS v2, Gaussian': dict(
        config='configs/dss_v2/scaleconvnet-antialiased-s3_1xb128-20e_scalemnist.py',
        style=dict(color='tab:olive'),
    ),
    'DSS v2, interpolated': dict(
        config='configs/dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py',
        options={
            'model.neck.0.align': 'largest',
            'model.neck.0.scale_space.base': 2.0,
            'model.neck.0.scale_space.num_scales': 3,
            'model.neck.0.scale_space.zero_scale': 0.5,
        },
        style=dict(color='tab:cyan'),
    ),
    'balanced-up1': dict(
        config='configs/aa_pyramid/scaleconvnet-balanced-up1_1xb128-20e_scalemnist.py',
        style=dict(color='tab:red', lw=2),
    ),
    'CNN + DCNv1': dict(
        config='configs/dcn/cnn-dcnv1_1xb128-20e_scalemnist.py', style=dict(color='tab:purple')
    ),
    'CNN + DCNv2': dict(
        config='configs/dcn/cnn-dcnv2_1xb128-20e_scalemnist.py',
        style=dict(color='tab:purple', ls=':'),
    ),
    'DSS v2 + DCNv1': dict(
        config='configs/deform_dss/scaleconvnet-bilinear-s3-dcnv1_1xb128-20e_scalemnist.py',
        style=dict(color='goldenrod'),
    ),
    'DSS v2 + DCNv2': dict(
        config='configs/deform_dss/scaleconvnet-bilinear-s3-dcnv2_1xb128-20e_scalemnist.py',
        style=dict(color='goldenrod', ls=':'),
    ),
    'DSS v1 + DCNv1': dict(
        config='configs/deform_dss/scaleconvnet-s3-dcnv1_1xb128-20e_scalemnist.py',
        style=dict(color='tab:orange'),
    ),
    'DSS v1 + DCNv2': dict(
        config='configs/deform_dss/scaleconvnet-s3-dcnv2_1xb128-20e_scalemnist.py',
        style=dict(color='tab:orange', ls=':'),
    ),
    'SESN': dict(
        config='configs/sesn/scaleconvnet-hermite-s4_1xb128-20e_scalemnist.py',
        style=dict(color='tab:gray'),
    ),
    'DISCO': dict(
        config='configs/disco/scaleconvnet-discrete-s4_1xb128-20e_scalemnist.py',
        style=dict(color='tab:gray', ls='--'),
    ),
    'Gaussian derivatives': dict(
        config='configs/gaussian_derivative/scaleconvnet-gaussder-s4_1xb128-20e_scalemnist.py',
        style=dict(color='tab:gray', ls=':'),
    ),
    'SO(2)': dict(
        config='configs/so2/so2convnet_1xb128-20e_scalemnist.py', style=dict(color='tab:brown')
    ),
}
del blur

comparisons = [
    ('deformation', 'CNN', 'CNN + DCNv1'),
    ('deformation, modulated', 'CNN', 'CNN + DCNv2'),
    ('deformation on a scale space', 'DSS v1', 'DSS v1 + DCNv1'),
    ('deformation on a scale space, modulated', 'DSS v1', 'DSS v1 + DCNv2'),
    ('deformation on a pyramid', 'DSS v2', 'DSS v2 + DCNv1'),
    ('deformation on a pyramid, modulated', 'DSS v2', 'DSS v2 + DCNv2'),
    ('scale space', 'CNN', 'DSS v1'),
    ('pyramid', 'CNN', 'DSS v2'),
    ('bilinear pyramid in place of a dense scale space', 'DSS v1', 'DSS v2'),
    ('Gaussian in place of bilinear pyramid', 'DSS v2', 'DSS v2, Gaussian'),
    ('interpolation in place of max pooling to match the levels', 'DSS v2', 'DSS v2, interpolated'),
    ('Hermite functions', 'DSS v1', 'SESN'),
    ('discrete kernels', 'DSS v1', 'DISCO'),
    ('derivatives of Gaussians', 'DSS v1', 'Gaussian derivatives'),
    ('blur before strides', 'CNN', 'CNN, blur'),
    ('blur before strides', 'DSS v1', 'DSS v1, blur'),
    ('blur before strides', 'DSS v2', 'DSS v2, blur'),
    ('rotation', 'CNN, blur', 'SO(2)'),
    ('all of it', 'CNN', 'balanced-up1'),
]
pictures = [
    dict(kind='scale', name='all', title='All models on MNIST-Scale, 6 epochs'),
    dict(
        kind='scale',
        name='deformable',
        title='With and without deformation',
        runs=['CNN', 'CNN + DCNv1', 'CNN + DCNv2', 'DSS v1', 'DSS v1 + DCNv1', 'DSS v1 + DCNv2',
              'DSS v2', 'DSS v2 + DCNv1', 'DSS v2 + DCNv2'],
    ),
    dict(
        kind='scale',
        name='blur',
        title='With and without a blur before each stride',
        runs=['CNN', 'CNN, blur', 'DSS v1', 'DSS v1, blur', 'DSS v2', 'DSS v2, blur',
              'DSS v2, Gaussian', 'SO(2)', 'balanced-up1'],
    ),
    dict(
        kind='scale',
        name='pyramids',
        title='Dense scale space and pyramids',
        runs=['CNN', 'DSS v1', 'DSS v2', 'DSS v2, Gaussian', 'DSS v2, interpolated'],
    ),
    dict(
        kind='scale',
        name='kernels',
        title='Kernels of the field',
        runs=['CNN', 'DSS v1', 'SESN', 'DISCO', 'Gaussian derivatives'],
    ),
    dict(kind='scatter', name='scatter', title='Equivariance error against accuracy'),
]  # fmt: skip
