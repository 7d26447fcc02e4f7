# What a wider blur before each stride does to the accuracy on sizes that were not trained on,
# beside what it does to the error: an ordinary network and economical-up1 and balanced-up1 of
# docs/choosing.md on digits, each with its own blur and with one of variance 3, trained as
# `make quickstart` does. About an hour of one CPU core.
title = 'Blurs on ScaleDigits, 20 epochs'
seeds = [0, 1, 2]
epochs = 20
options = {'train_cfg.val_interval': 20, 'test_dataloader.dataset.scale_range': [1.0, 1.0]}
equivariance = dict(
    factors=[1, 1.1, 1.5, 2, 2.5, 3], layers=['backbone'], num_images=64, accuracy_images=500
)


def make_runs() -> dict:
    networks = {
        'ordinary': ('resnet/resnet18-blur', 'black', '5 taps'),
        'economical-up1': ('aa_pyramid/scaleresnet18-economical-up1', 'tab:blue', '5 taps'),
        'balanced-up1': ('aa_pyramid/scaleresnet18-balanced-up1', 'tab:red', '7 taps'),
    }
    wider = {'model.backbone.aa_layer.kernel_size': None, 'model.backbone.aa_layer.variance': 3.0}
    found = {}
    for network, (config, color, blur) in networks.items():
        run = dict(config=f'configs/{config}-w8_1xb50-10e_scaledigits.py')
        found[f'{network}, {blur}'] = dict(run, style=dict(color=color, marker='o'))
        found[f'{network}, variance 3'] = dict(
            run, options=wider, style=dict(color=color, marker='^', ls='--')
        )
    return found


runs = make_runs()
pictures = [dict(kind='scale', title='Blurs before each stride, on digits trained at 1 to 1/1.5')]
del make_runs
