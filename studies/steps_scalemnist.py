# What each step from the ordinary CNN to the deep pyramid brings on MNIST-Scale: every run has all
# that the one above it has, and one thing more. Seed k stands for realization k, as in
# realizations_scalemnist.py, where the ordinary CNN is; the epoch is chosen on the 2,000 validation
# images, and tested once on the 50,000 test images.
# About six hours on two CPU cores.
title = 'MNIST-Scale, 28x28, no augmentation: one step at a time'
seeds = [0, 1, 2]
seed_options = [f'{split}_dataloader.dataset.realization' for split in ('train', 'val', 'test')]
checkpoint = 'best'
test = True


def make_runs() -> dict:
    # Half an octave apart, from √2 times the image's size to 1 / (2 √2).
    levels = {
        'model.backbone.scale_space.num_scales': 4,
        'model.backbone.scale_space.first_level': -1,
    }
    no_dropout = {'model.neck.scale_dropout': 0.0}
    no_blur = {'model.backbone.aa_layer': None}
    shallow = 'configs/aa_pyramid/scaleconvnet-balanced-up1_1xb128-20e_scalemnist.py'
    deep = 'configs/aa_pyramid/scaleconvnet-deep-pyramid-s4-blur7_1xb128-20e_scalemnist.py'
    wide = 'configs/aa_pyramid/scaleconvnet-deep-wide-pyramid-s4-blur7_1xb128-40e_scalemnist.py'
    channels = {'model.backbone.channels': (32, 80, 128), 'model.head.in_channels': 128 * 4}
    return {
        'pyramid': dict(config=shallow, options={**levels, **no_dropout, **no_blur}),
        '+ blur': dict(config=shallow, options={**levels, **no_dropout}),
        '+ scale dropout': dict(config=shallow, options=levels),
        '+ 3x3 twice': dict(config=deep),
        '+ channels': dict(config=deep, options=channels),
        '+ 40 epochs': dict(config=wide),
    }


runs = make_runs()
