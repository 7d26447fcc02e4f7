# Sizes that were never trained: the evaluations 1, 2, 3 (a third of the sizes in training) and 4
# (all) of STIR's digits and emoji, all sizes in the test. An object of s pixels stands at the
# factor 64 / s. There is one emoji where there are 50 digits, so they train for more epochs.
title = 'STIR, 6 epochs of digits, 60 of emoji'
seeds = [0, 1, 2]
epochs = 6
# Measured on the objects of one size after the other.
options = {'train_cfg.val_interval': 6, 'test_dataloader.dataset.scale': 1.0}
equivariance = dict(
    factors=[round(64 / size, 5) for size in range(64, 16, -1)],
    layers=['backbone'],
    num_images=16,
    accuracy_images=500,
    batch_size=100,
)
ours = 'configs/aa_pyramid/scaleresnet18-prob-s3-blur-w8_1xb128-20e_stir.py'
models = {
    'ResNet': dict(config='configs/resnet/resnet18-w8_1xb128-20e_stir.py', color='black'),
    'ResNet, blur': dict(
        config='configs/resnet/resnet18-blur-w8_1xb128-20e_stir.py', color='tab:gray'
    ),
    'mean of probabilities': dict(config=ours, color='tab:red'),
    'gate': dict(config=ours, options={'model.head.pool': 'gate'}, color='tab:pink'),
}
runs = {}
for lowest, highest, dashes in ((17, 32, '-'), (33, 48, '--'), (49, 64, ':'), (17, 64, '-.')):
    sizes = {f'{part}_dataloader.dataset.sizes': (lowest, highest) for part in ('train', 'val')}
    for name, model in models.items():
        runs[f'{name}, {lowest} to {highest}'] = dict(
            config=model['config'],
            options={**model.get('options', {}), **sizes},
            style=dict(color=model['color'], ls=dashes),
        )
emoji = {
    'train_dataloader.batch_size': 32,
    'train_cfg.val_interval': 60,
    'model.head.num_classes': 36,
    'data_preprocessor.num_classes': 36,
}
for part in ('train', 'val', 'test'):
    emoji[f'{part}_dataloader.dataset.objects'] = 'emoji'
    emoji[f'{part}_dataloader.dataset.data_root'] = 'data/fontawesome'
runs |= {
    f'emoji, {name}': dict(run, epochs=60, options={**run['options'], **emoji})
    for name, run in runs.items()
}
# Not trained: of the levels of the training the finest alone, an ordinary network with a blur.
runs |= {
    f'finest level, {name.partition(", ")[2]}': dict(
        run,
        options={**run['options'], 'model.backbone.scale_space.num_scales': 1},
        weights_of=name,
        style={**run['style'], 'color': 'tab:purple'},
    )
    for name, run in runs.items()
    if name.startswith('mean')
}
runs['mean of probabilities, 17 to 32, 20 epochs'] = dict(
    runs['mean of probabilities, 17 to 32'], epochs=20
)
del emoji, part, ours, models, lowest, highest, dashes, sizes, name, model
pictures = [
    dict(
        kind='scale',
        name=f'{lowest}_{highest}',
        title=f'Trained on digits of {lowest} to {highest} pixels',
        runs=[
            run
            for run in runs
            if run.endswith(f', {lowest} to {highest}') and not run.startswith('emoji')
        ],
    )
    for lowest, highest in ((17, 32), (33, 48), (49, 64), (17, 64))
]
