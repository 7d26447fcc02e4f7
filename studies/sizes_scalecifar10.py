# Photographs of sizes that were never trained: networks trained on scale-CIFAR10's images of 1 to
# 1/1.5 of their size, on 1/2 to .3 of it, and on 1 to .3. 10,000 training images; all is measured
# on images held out of CIFAR-10's training files. A seed takes nine hours of one CPU core.
title = 'Scale-CIFAR10, 10,000 training images, 30 epochs'
seeds = [0, 1, 2]
options = {'train_dataloader.dataset.indices': 10000, 'train_cfg.val_interval': 30}
for part in ('val', 'test'):
    options[f'{part}_dataloader.dataset.split'] = 'val'
    options[f'{part}_dataloader.dataset.indices'] = 2000
for part in ('train', 'val', 'test'):  # a re-encoded copy will do
    options[f'{part}_dataloader.dataset.check_integrity'] = False
    options[f'{part}_dataloader.num_workers'] = 0
equivariance = dict(
    factors=[1, 1.1, 1.5, 2, 2.5, 3], layers=['backbone'], num_images=64, accuracy_images=2000
)

gate = 'configs/aa_pyramid/scaleresnet18-gate-s3-blur-w16_1xb128-30e_scalecifar10.py'
models = {
    'ResNet, blur': dict(
        config='configs/resnet/resnet18-blur-w16_1xb128-30e_scalecifar10.py', color='black'
    ),
    'gate': dict(config=gate, color='tab:pink'),
    'gate, 2 levels': dict(
        config=gate, options={'model.backbone.scale_space.num_scales': 2}, color='tab:orange'
    ),
    'gate, 2 levels, no scale dropout': dict(
        config=gate,
        options={'model.backbone.scale_space.num_scales': 2, 'model.head.scale_dropout': 0.0},
        color='tab:olive',
    ),
    'mean of probabilities': dict(
        config=gate, options={'model.head.pool': 'prob'}, color='tab:red'
    ),
    'ResNet': dict(config='configs/resnet/resnet18-w16_1xb128-30e_scalecifar10.py', color='gray'),
    # Not trained: of the levels of the training the finest alone, an ordinary network with a blur.
    'gate, finest level': dict(
        config=gate,
        options={'model.backbone.scale_space.num_scales': 1},
        weights_of='gate',
        color='tab:purple',
    ),
    # Not trained: the levels have 2, 1 and 1/2 times the image's size.
    'ResNet, blur, three sizes': dict(
        config=gate,
        options={'model.head.pool': 'prob', 'model.backbone.scale_space.first_level': -1},
        weights_of='ResNet, blur',
        color='tab:blue',
    ),
}
runs = {}
trained = {
    '1 to 1/1.5': ((round(2 / 3, 4), 1), '-'),
    '1/2 to .3': ((0.3, 0.5), ':'),
    '1 to .3': ((0.3, 1), '--'),
}
for words, (sizes, lines) in trained.items():
    ranges = {f'{part}_dataloader.dataset.scale_range': sizes for part in ('train', 'val', 'test')}
    for name, model in models.items():
        runs[f'{name}, {words}'] = dict(
            config=model['config'],
            options={**model.get('options', {}), **ranges},
            style=dict(color=model['color'], ls=lines),
        )
        if source := model.get('weights_of'):
            runs[f'{name}, {words}']['weights_of'] = f'{source}, {words}'
# A longer training, and fewer images.
fewer = {'train_dataloader.dataset.indices': 2000}
for words, more, sizes in (
    ('60 epochs', {}, '1 to 1/1.5'),
    ('2,000 images, 60 epochs', fewer, '1 to 1/1.5'),
    ('2,000 images, 60 epochs', fewer, '1 to .3'),
):
    for name in ('ResNet, blur', 'gate', 'gate, finest level'):
        run = runs[f'{name}, {sizes}']
        run = dict(run, epochs=60, options={**run['options'], **more})
        if source := models[name].get('weights_of'):
            run['weights_of'] = f'{source}, {words}, {sizes}'
        runs[f'{name}, {words}, {sizes}'] = dict(run, style=dict(run['style'], ls='-.'))
del part, gate, models, words, source, lines, sizes, ranges, name, model, fewer, more, run

comparisons = [
    ('levels whose answers a gate weighs', f'ResNet, blur, {sizes}', f'gate, {sizes}')
    for sizes in (*trained, '60 epochs, 1 to 1/1.5')
]
pictures = [
    dict(
        kind='scale',
        name=name,
        title=f'Trained on sizes of {sizes}',
        runs=[run for run in runs if run.endswith(sizes)],
    )
    for name, sizes in zip(('some', 'small', 'all'), trained)
]
del trained
