# Test error on the six published realizations of MNIST-Scale, as the field reports it, with scale
# augmentation: trained on 10,000 images, each rescaled by a factor log-uniform from 0.5 to 2
# whenever it is read, the epoch chosen on the 2,000 validation images, tested once on the 50,000
# test images. Seed k stands for realization k.
# About six hours on two CPU cores, four and a half of them for the deep network.
title = 'MNIST-Scale, 28x28, scale augmentation: realizations 0 to 5'
seeds = [0, 1, 2, 3, 4, 5]
seed_options = [f'{split}_dataloader.dataset.realization' for split in ('train', 'val', 'test')]
checkpoint = 'best'
test = True
runs = {
    'CNN': dict(config='configs/cnn/cnn_1xb128-20e_scalemnist-aug.py'),
    'CNN, blur': dict(config='configs/cnn/cnn-blur_1xb128-20e_scalemnist-aug.py'),
    'DSS v1': dict(config='configs/dss/scaleconvnet-s3_1xb128-20e_scalemnist-aug.py'),
    'DSS v2': dict(config='configs/dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist-aug.py'),
    'deep, balanced-up1': dict(
        config='configs/aa_pyramid/scaleconvnet-deep-balanced-up1_1xb128-20e_scalemnist-aug.py'
    ),
}
