# Photographs, weights that have seen ImageNet, and common practice: networks fine-tuned on
# photographs of one size, 96x96 pixels, and tested at 1/3, 1/2, 1/1.5, 1, 1.5 and 2 of it, with
# twins that were trained with jitter over all these sizes. Each seed draws its own 15 training and
# 10 test images of each class. Rows of three sizes test the weights of the ordinary network on the
# image at twice, once and half of its size, rows of coarser sizes at once, half and a quarter, as a
# pyramid without blur whose levels are separate. This is multi-scale testing.
# A seed takes about three hours of one CPU core, more than one of them for the finer octave.
title = 'Caltech-101, 15 images a class, 10 epochs, pretrained'
seeds = [0, 1, 2]
SPLITS = dict(train='train', val='test', test='test')
seed_options = {
    f'{part}_dataloader.dataset.ann_file': f'{split}_{{seed}}.txt' for part, split in SPLITS.items()
}


def crops(part: str, side: int) -> dict:
    """Return the options that crop images of a split to a size."""
    pipeline = f'{part}_dataloader.dataset.pipeline'
    return {f'{pipeline}.1.scale': side, f'{pipeline}.2.crop_size': side}


SIDES = {'1/3': 32, '1/2': 48, '1/1.5': 64, '1': 96, '1.5': 144, '2': 192}  # pixels
tests = {str(side): crops('test', side) for side in SIDES.values()}
columns = {title: [str(side), 'accuracy/top1'] for title, side in SIDES.items()}
# The error compares the largest images with smaller ones.
options = crops('test', 192)
equivariance = dict(
    factors=[1, 1.333, 2, 3, 4, 6], layers=['backbone'], num_images=16, no_accuracy=True
)

OURS = 'configs/aa_pyramid/scaleresnet50-gate-s3-blur-w32_1xb32-10e_caltech101.py'
UP = {'model.backbone.scale_space.first_level': -1}
PLAIN = {'model.backbone.aa_layer': None}
MODELS = {
    'ResNet': dict(
        config='configs/resnet/resnet50-w32_1xb32-10e_caltech101.py',
        style=dict(color='gray', marker='o'),
    ),
    'ResNet, frozen norms': dict(
        config='configs/resnet/resnet50-w32_1xb32-10e_caltech101.py',
        options={'model.backbone.norm_eval': True},
        style=dict(color='tab:brown', marker='X'),
    ),
    'ResNet, blur': dict(
        config='configs/resnet/resnet50-blur-w32_1xb32-10e_caltech101.py',
        style=dict(color='black', marker='s'),
    ),
    'gate': dict(config=OURS, style=dict(color='tab:pink', marker='^')),
    'gate, no blur': dict(config=OURS, options=PLAIN, style=dict(color='tab:red', marker='D')),
    'gate, no blur, finer octave': dict(
        config=OURS, options={**PLAIN, **UP}, style=dict(color='tab:purple', marker='v')
    ),
}
WAYS = {
    '': ('trained on one size', {}),
    ', jitter': (
        'trained with jitter over all sizes',
        {
            **crops('train', 192),
            'data_preprocessor.type': 'mmscale.MultiScaleClsDataPreprocessor',
            'data_preprocessor.sizes': list(SIDES.values()),
        },
    ),
}
runs = {}
for ending, (trained, more) in WAYS.items():
    for name, model in MODELS.items():
        changes = {**model.get('options', {}), **more}
        runs[name + ending] = {**model, 'options': changes, 'trained': trained, 'label': name}
    for name, color, changes in (
        ('ResNet, three sizes, mean', 'tab:blue', {**UP, 'model.head.pool': 'prob'}),
        ('ResNet, three sizes, max', 'tab:cyan', {**UP, 'model.head.pool': 'max'}),
        ('ResNet, coarser sizes, mean', 'tab:green', {'model.head.pool': 'prob'}),
    ):
        runs[name + ending] = dict(
            config=OURS,
            options={**changes, **more, **PLAIN},
            weights_of=f'ResNet{ending}',
            trained=trained,
            label=name,
            style=dict(color=color, marker='P'),
        )
pictures = [
    dict(kind='columns', columns=list(columns), panels='trained', label='accuracy (%)'),
]
del SPLITS, SIDES, OURS, UP, PLAIN, MODELS, WAYS, ending, trained, more, name, model, changes, color
