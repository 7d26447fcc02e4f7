# Ordinary, deformable, scale-equivariant and rotation-equivariant ResNets-18 of one size on
# scale-CIFAR10: accuracy and equivariance error against scale. The configs' recipe for 15 epochs in
# place of 30, on 10,000 of the training images; all is measured on images held out of CIFAR-10's
# training files. A seed of all models takes about nine hours of one CPU core.
title = 'Models on scale-CIFAR10, 10,000 training images, 15 epochs'
seeds = [0, 1, 2]
epochs = 15
options = {'train_dataloader.dataset.indices': 10000, 'train_cfg.val_interval': 15}
for part in ('val', 'test'):
    options[f'{part}_dataloader.dataset.split'] = 'val'
    options[f'{part}_dataloader.dataset.indices'] = 2000
for part in ('train', 'val', 'test'):  # a re-encoded copy will do
    options[f'{part}_dataloader.dataset.check_integrity'] = False
    options[f'{part}_dataloader.num_workers'] = 0
del part
equivariance = dict(
    factors=[1, 1.1, 1.5, 2, 2.5, 3], layers=['backbone'], num_images=64, accuracy_images=2000
)

blur = {
    'model.backbone.aa_layer.type': 'mmscale.ScaleBlurPool2d',
    'model.backbone.aa_layer.kernel_size': 5,
}
resnet, dcn = 'configs/resnet/resnet18-{}w16_1xb128-30e_scalecifar10.py', 'configs/dcn/resnet18'
deform_dss, end = 'configs/deform_dss/scaleresnet18', '1xb128-30e_scalecifar10.py'
runs = {
    'CNN': dict(config=resnet.format(''), style=dict(color='black')),
    'CNN, blur': dict(config=resnet.format('blur-'), style=dict(color='black', ls='--')),
    'DSS v2': dict(
        config=f'configs/dss_v2/scaleresnet18-bilinear-s3-w16_{end}',
        style=dict(color='tab:green'),
    ),
    'gate': dict(
        config=f'configs/aa_pyramid/scaleresnet18-gate-s3-blur-w16_{end}',
        style=dict(color='tab:pink', lw=2),
    ),
    'DSS v1': dict(config=f'configs/dss/scaleresnet18-s3-w16_{end}', style=dict(color='tab:blue')),
    'CNN + DCNv2': dict(config=f'{dcn}-w15-dcnv2_{end}', style=dict(color='tab:purple', ls=':')),
    'DSS v2 + DCNv2': dict(
        config=f'{deform_dss}-bilinear-s3-w15-dcnv2_{end}', style=dict(color='goldenrod', ls=':')
    ),
    'DSS v1 + DCNv2': dict(
        config=f'{deform_dss}-s3-w15-dcnv2_{end}', style=dict(color='tab:orange', ls=':')
    ),
    'SO(2)': dict(config=f'configs/so2/so2resnet18-w10_{end}', style=dict(color='tab:brown')),
    'economical-up1': dict(
        config=f'configs/aa_pyramid/scaleresnet18-economical-up1-w16_{end}',
        style=dict(color='tab:red', ls='--', lw=2),
    ),
    'CNN + DCNv1': dict(config=f'{dcn}-w15-dcnv1_{end}', style=dict(color='tab:purple')),
    'DSS v2, Gaussian': dict(
        config=f'configs/dss_v2/scaleresnet18-antialiased-s3-w16_{end}',
        style=dict(color='tab:olive'),
    ),
    'DSS v2, blur': dict(
        config=f'configs/dss_v2/scaleresnet18-bilinear-s3-w16_{end}',
        options=blur,
        style=dict(color='tab:green', ls='--'),
    ),
    'DSS v1, blur': dict(
        config=f'configs/dss/scaleresnet18-s3-w16_{end}',
        options=blur,
        style=dict(color='tab:blue', ls='--'),
    ),
    'CNN + DCNv2, blur': dict(
        config=f'{dcn}-w15-dcnv2-blur_{end}', style=dict(color='tab:purple', ls='-.')
    ),
    'DSS v2 + DCNv1': dict(
        config=f'{deform_dss}-bilinear-s3-w15-dcnv1_{end}', style=dict(color='goldenrod')
    ),
    'DSS v1 + DCNv1': dict(
        config=f'{deform_dss}-s3-w15-dcnv1_{end}', style=dict(color='tab:orange')
    ),
    'balanced-up1': dict(
        config=f'configs/aa_pyramid/scaleresnet18-balanced-up1-w16_{end}',
        style=dict(color='tab:red', lw=2),
    ),
}
del blur, resnet, dcn, deform_dss, end

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
    ('blur before strides', 'CNN', 'CNN, blur'),
    ('blur before strides', 'DSS v1', 'DSS v1, blur'),
    ('blur before strides', 'DSS v2', 'DSS v2, blur'),
    ('blur before strides', 'CNN + DCNv2', 'CNN + DCNv2, blur'),
    ('rotation', 'CNN, blur', 'SO(2)'),
    ('a gate over a blurred pyramid', 'CNN, blur', 'gate'),
    ('a finer octave besides', 'CNN, blur', 'economical-up1'),
]
pictures = [
    dict(kind='scale', name='all', title='All models on scale-CIFAR10, 15 epochs'),
    dict(kind='scatter', name='scatter', title='Equivariance error against accuracy'),
]
