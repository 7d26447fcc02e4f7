# What each part of economical-up1 of docs/choosing.md brings on sizes that were not trained on:
# that network, and the same without one of its parts, trained as by `make quickstart`. About an
# hour of one CPU core.
title = 'Parts of economical-up1, ScaleDigits, 20 epochs'
seeds = [0, 1, 2]
epochs = 20
options = {'train_cfg.val_interval': 20, 'test_dataloader.dataset.scale_range': [1.0, 1.0]}
equivariance = dict(
    factors=[1, 1.1, 1.5, 2, 2.5, 3], layers=['backbone'], num_images=64, accuracy_images=500
)


def make_runs() -> dict:
    config = 'configs/aa_pyramid/scaleresnet18-economical-up1-w8_1xb50-10e_scaledigits.py'
    # Its levels are twice, once and half the image's size.
    once_and_half = {
        'model.backbone.scale_space.num_scales': 2,
        'model.backbone.scale_space.first_level': 0,
    }
    without = {
        'without the blur': ({'model.backbone.aa_layer': None}, 'tab:orange', 's'),
        'without the finest level': (once_and_half, 'tab:green', 'v'),
        'without scale dropout': ({'model.neck.scale_dropout': 0.0}, 'tab:purple', '^'),
    }
    found = {'economical-up1': dict(config=config, style=dict(color='tab:blue', marker='o'))}
    for part, (options, color, marker) in without.items():
        style = dict(color=color, marker=marker, ls='--')
        found[part] = dict(config=config, options=options, style=style)
    found['ordinary, blur'] = dict(
        config='configs/resnet/resnet18-blur-w8_1xb50-10e_scaledigits.py',
        style=dict(color='black', marker='o', ls=':'),
    )
    return found


runs = make_runs()
pictures = [dict(kind='scale', title='Parts of economical-up1, trained at 1 to 1/1.5')]
del make_runs
