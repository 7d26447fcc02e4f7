# Where a detector pools over scale, and what scale spaces do for objects of 16 to 128 pixels:
# RetinaNets at equal recipe, trained on digits of all sizes, and of 32 to 64 pixels alone.
#   python tools/dataset_converters/scatter_objects.py mnist data/mnist data/scattered_mnist \
#       --train 3000
# In the environment of `make test-downstream`.
title = 'RetinaNet on scattered MNIST, 3,000 images of 256 pixels, 2 epochs, batches of 4'
seeds = [0, 1, 2]
options = {
    'train_dataloader.batch_size': 4,
    'train_cfg.max_epochs': 2,
    'train_cfg.val_interval': 2,
    'param_scheduler.1.T_max': 2,
}
equivariance = dict(
    factors=[1, 1.25, 1.5, 2, 3], layers=['neck'], num_images=16, accuracy_images=100
)


def make_tests() -> dict:
    def of(split):
        return {
            'test_dataloader.dataset.ann_file': f'annotations/{split}.json',
            'test_dataloader.dataset.data_prefix.img': f'images/{split}/',
            'test_evaluator.ann_file': f'data/scattered_mnist/annotations/{split}.json',
        }

    splits = dict(all='test', small='test_small', medium='test_medium', large='test_large')
    return {name: of(split) for name, split in splits.items()}


def make_runs() -> dict:
    models = {
        'ordinary': ('r18-w16_fpn', dict(color='black', marker='o')),
        'blur': ('scaleresnet18-w16-blur_fpn', dict(color='tab:gray', marker='s')),
        'pyramid': ('scaleresnet18-w16-pyramid_fpn', dict(color='tab:green', marker='^')),
        'levels': ('scaleresnet18-w16-levels_fpn', dict(color='tab:blue', marker='D')),
        'scalefpn': ('scaleresnet18-w16-pyramid_scalefpn', dict(color='tab:orange', marker='P')),
        'balanced': ('scaleresnet18-w16-balanced_scalefpn', dict(color='tab:red', marker='v')),
    }
    trained = {
        'all': ('digits of all sizes', {}),
        'medium': (
            'digits of 32 to 64 pixels',
            {
                'train_dataloader.dataset.ann_file': 'annotations/train_medium.json',
                'train_dataloader.dataset.data_prefix.img': 'images/train_medium/',
            },
        ),
    }
    found = {}
    for place, (words, options) in trained.items():
        for model, (name, style) in models.items():
            found[model if place == 'all' else f'{model}, {place} sizes'] = dict(
                config=f'configs/downstream/scattered_mnist/retinanet_{name}_1xb8-24e.py',
                options=options,
                trained=f'trained on {words}',
                label=model,
                style=dict(style, ls='-' if place == 'all' else '--'),
            )
    return found


tests = make_tests()
columns = {
    'AP': ['all', 'coco/bbox_mAP'],
    '16 to 32 px': ['small', 'coco/bbox_mAP'],
    '32 to 64 px': ['medium', 'coco/bbox_mAP'],
    '64 to 128 px': ['large', 'coco/bbox_mAP'],
}
runs = make_runs()
pictures = [
    dict(kind='columns', columns=list(columns)[1:], panels='trained', label='mean AP',
         title='RetinaNet by size of the digits'),
    dict(kind='scale', layer=['neck', 'neck[0]'], title='RetinaNet over scale'),
]  # fmt: skip
del make_runs, make_tests
