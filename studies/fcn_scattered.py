# What scale spaces do for the segmentation of objects of 16 to 128 pixels: FCNs of equal parameters
# at equal recipe, trained on digits of all sizes, and of 32 to 64 pixels alone.
#   python tools/dataset_converters/scatter_objects.py mnist data/mnist data/scattered_mnist \
#       --train 3000
# In the environment of `make test-downstream`.
title = 'FCN on scattered MNIST, 3,000 images of 256 pixels, 4 epochs'
seeds = [0, 1, 2]
options = {
    'train_cfg.max_epochs': 4,
    'train_cfg.val_interval': 4,
    'param_scheduler.1.T_max': 4,
}
equivariance = dict(
    factors=[1, 1.25, 1.5, 2, 3], layers=['backbone'], num_images=16, accuracy_images=100
)


def make_tests() -> dict:
    def of(split):
        return {
            'test_dataloader.dataset.data_prefix.img_path': f'images/{split}',
            'test_dataloader.dataset.data_prefix.seg_map_path': f'masks/{split}',
        }

    splits = dict(all='test', small='test_small', medium='test_medium', large='test_large')
    return {name: of(split) for name, split in splits.items()}


def make_runs() -> dict:
    models = {
        'ordinary': ('r18-w16-d8', dict(color='black', marker='o')),
        'blur': ('scaleresnet18-w16-d8-blur', dict(color='tab:gray', marker='s')),
        'pyramid': ('scaleresnet18-w16-d8-pyramid', dict(color='tab:green', marker='^')),
        'balanced': ('scaleresnet18-w16-d8-balanced', dict(color='tab:red', marker='v')),
        'mean of probabilities': ('scaleresnet18-w16-d8-prob', dict(color='tab:blue', marker='D')),
    }
    trained = {
        'all': ('digits of all sizes', {}),
        'medium': (
            'digits of 32 to 64 pixels',
            {
                'train_dataloader.dataset.data_prefix.img_path': 'images/train_medium',
                'train_dataloader.dataset.data_prefix.seg_map_path': 'masks/train_medium',
            },
        ),
    }
    found = {}
    for place, (words, options) in trained.items():
        for model, (name, style) in models.items():
            found[model if place == 'all' else f'{model}, {place} sizes'] = dict(
                config=f'configs/downstream/scattered_mnist/fcn_{name}_1xb8-24e.py',
                options=options,
                trained=f'trained on {words}',
                label=model,
                style=dict(style, ls='-' if place == 'all' else '--'),
            )
    return found


tests = make_tests()
columns = {
    'mean IoU, %': ['all', 'mIoU'],
    '16 to 32 px': ['small', 'mIoU'],
    '32 to 64 px': ['medium', 'mIoU'],
    '64 to 128 px': ['large', 'mIoU'],
}
runs = make_runs()
pictures = [
    dict(kind='columns', columns=list(columns)[1:], panels='trained', label='mean IoU (%)',
         title='FCN by size of the digits'),
    dict(kind='scale', title='FCN over scale'),
]  # fmt: skip
del make_runs, make_tests
