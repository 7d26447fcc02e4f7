# Test error on the six published realizations of MNIST-Scale, as the field reports it: trained on
# 10,000 images without augmentation, the epoch chosen on the 2,000 validation images, tested once
# on the 50,000 test images. Seed k stands for realization k.
# About six hours on two CPU cores, four and a half of them for the deep network; a seed of SESN or
# of DISCO takes another hour of one core.
title = 'MNIST-Scale, 28x28, no augmentation: realizations 0 to 5'
seeds = [0, 1, 2, 3, 4, 5]
seed_options = [f'{split}_dataloader.dataset.realization' for split in ('train', 'val', 'test')]
checkpoint = 'best'
test = True
runs = {
    'CNN': dict(config='configs/cnn/cnn_1xb128-20e_scalemnist.py'),
    'CNN, blur': dict(config='configs/cnn/cnn-blur_1xb128-20e_scalemnist.py'),
    'DSS v1': dict(config='configs/dss/scaleconvnet-s3_1xb128-20e_scalemnist.py'),
    'DSS v2': dict(config='configs/dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py'),
    'deep, balanced-up1': dict(
        config='configs/aa_pyramid/scaleconvnet-deep-balanced-up1_1xb128-20e_scalemnist.py'
    ),
    'SESN': dict(config='configs/sesn/scaleconvnet-hermite-s4_1xb128-20e_scalemnist.py'),
    'DISCO': dict(config='configs/disco/scaleconvnet-discrete-s4_1xb128-20e_scalemnist.py'),
}
