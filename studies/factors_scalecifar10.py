# What base, channels, learning rate, interaction, number of scales and blur of level 0 do on
# photographs, one at a time around the setting of the configs, for DSS v1 and its deformable
# version, ResNets-18. The configs' recipe for 15 epochs in place of 30, on 10,000 training images
# of scale-CIFAR10; all is measured on images held out of CIFAR-10's training files. One seed: about
# 20 hours of one CPU core.
title = 'Hyper-parameters on scale-CIFAR10, 10,000 training images, 15 epochs'
seeds = [0]
epochs = 15
options = {'train_dataloader.dataset.indices': 10000, 'train_cfg.val_interval': 15}
for part in ('val', 'test'):
    options[f'{part}_dataloader.dataset.split'] = 'val'
    options[f'{part}_dataloader.dataset.indices'] = 2000
for part in ('train', 'val', 'test'):  # a re-encoded copy will do
    options[f'{part}_dataloader.dataset.check_integrity'] = False
    options[f'{part}_dataloader.num_workers'] = 0
equivariance = dict(
    factors=[1, 1.1, 1.5, 2, 2.5, 3], layers=['backbone'], num_images=64, accuracy_images=2000
)


def make_runs() -> dict:
    from factors import one_at_a_time

    # Widths by that of the ordinary network; those of the deformable network make up for the
    # parameters of its offset branches.
    models = {
        'DSS v1': (
            'configs/dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10.py', {8: 8, 16: 16, 32: 32}
        ),
        'Deformable DSS': (
            'configs/deform_dss/scaleresnet18-s3-w15-dcnv1_1xb128-30e_scalecifar10.py',
            {8: 7, 16: 15, 32: 30},
        ),
    }  # fmt: skip

    def run_of(model, **values):
        config, widths = models[model]
        width, grid = widths[values['channels']], 'model.backbone.scale_space'
        return dict(
            config=config,
            options={
                **{f'{grid}.{name}': values[name] for name in ('base', 'num_scales', 'zero_scale')},
                'model.backbone.interaction': values['interaction'],
                'model.backbone.stem_channels': width,
                'model.backbone.base_channels': width,
                'model.head.in_channels': 8 * width,
                'optim_wrapper.optimizer.lr': values['lr'],
            },
        )

    # A base that is no integer has fractional dilations: with base 1.5 and four levels a training
    # of DSS v1 would take 100 minutes; with this setting it took 34.
    setting = dict(base=2.0, channels=16, lr=0.1, interaction=1, num_scales=3, zero_scale=0.5)
    others = dict(
        base=[1.5],
        channels=[8, 32],
        lr=[0.05, 0.01],
        interaction=[2],
        num_scales=[2, 4],
        zero_scale=[0.25, 1.0],
    )
    return one_at_a_time(setting, others, models, run_of)


runs = make_runs()
pictures = [
    dict(kind='factors', name='factors', title='One at a time: accuracy'),
    dict(
        kind='factors',
        name='errors',
        measure='error',
        title='One at a time: equivariance error',
    ),
]
del part, make_runs
