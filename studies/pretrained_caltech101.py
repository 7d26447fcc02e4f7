# Photographs, weights that have seen ImageNet, and common practice: trained on photographs of one
# size, tested at 2, 1.5, 1, 1/1.5, 1/2 and 1/3 of it. A photograph that fills its canvas stands at
# factor 1, the size of the training at factor 2. Each seed draws its own 15 training and 10 test
# images of each class. Rows of multi-scale testing run the weights of the ordinary network on
# several sizes of the image, as a pyramid without blur whose levels answer by themselves.
# A seed takes five hours of one CPU core, three of them for the finer octave.
title = 'Caltech-101, 15 images a class, 10 epochs, pretrained'
seeds = [0, 1, 2]
seed_options = {
    f'{part}_dataloader.dataset.ann_file': f'{"train" if part == "train" else "test"}_{{seed}}.txt'
    for part in ('train', 'val', 'test')
}
equivariance = dict(
    factors=[1, 1.333, 2, 3, 4, 6],
    layers=['backbone'],
    num_images=16,
    accuracy_images=1000,
    batch_size=50,
)

ours = 'configs/aa_pyramid/scaleresnet50-gate-s3-blur-w32_1xb32-10e_caltech101.py'
models = {
    'ResNet': dict(config='configs/resnet/resnet50-w32_1xb32-10e_caltech101.py', color='gray'),
    'ResNet, blur': dict(
        config='configs/resnet/resnet50-blur-w32_1xb32-10e_caltech101.py', color='black'
    ),
    'gate': dict(config=ours, color='tab:pink'),
    'gate, finer octave': dict(
        config=ours, options={'model.backbone.scale_space.first_level': -1}, color='tab:red'
    ),
}
jitter = {'train_dataloader.dataset.pipeline.5.scale_range': (0.1667, 1.0)}
runs = {}
for ending, more, dashes in (('', {}, '-'), (', jitter', jitter, '--')):
    for name, model in models.items():
        runs[name + ending] = dict(
            config=model['config'],
            options={**model.get('options', {}), **more},
            style=dict(color=model['color'], ls=dashes),
        )
for name in ('ResNet', 'ResNet, jitter'):
    for how, pool, color in (('mean', 'prob', 'tab:blue'), ('max', 'max', 'tab:cyan')):
        runs[f'{name}, three sizes, {how}'] = dict(
            config=ours,
            options={
                'model.backbone.aa_layer': None,
                'model.backbone.scale_space.first_level': -1,
                'model.head.pool': pool,
            },
            weights_of=name,
            style=dict(color=color, ls='--' if 'jitter' in name else '-'),
        )
del ours, models, jitter, ending, more, dashes, name, model, how, pool, color

comparisons = [
    ('three levels and a gate', 'ResNet, blur', 'gate'),
    ('three levels and a gate, with jitter', 'ResNet, blur, jitter', 'gate, jitter'),
    ('levels against sizes in the test', 'ResNet, three sizes, mean', 'gate, finer octave'),
]
pictures = [
    dict(
        kind='scale',
        name=name,
        title=f'Trained {words}',
        runs=[run for run in runs if ('jitter' in run) == (name == 'jitter')],
    )
    for name, words in (('fixed', 'on one size, at 1/2'), ('jitter', 'with jitter, from 1 to 1/6'))
]
