# What base, channels, learning rate, interaction, number of scales and blur of level 0 do, one at a
# time around one setting, for DSS v1 and its deformable version. MNIST-Scale reduced to 2,000
# training images and 10 epochs, one seed: about four hours on two CPU cores.
title = 'Hyper-parameters on MNIST-Scale, 2,000 training images, 10 epochs'
seeds = [0]
epochs = 10
# Validated at the end alone: ten validations would take half as long as the training.
options = {'train_dataloader.dataset.indices': 2000, 'train_cfg.val_interval': 10}
# At factors above 1.5 images of 28 pixels do not hold eight levels: there is no error there. Nor is
# there with interaction: each of three layers looks up, until no level is left that sees all of its
# own.
equivariance = dict(
    factors=[1, 1.1, 1.5, 2, 2.5, 3], layers=['backbone'], num_images=32, accuracy_images=2000
)


def make_runs() -> dict:
    from factors import one_at_a_time

    # The setting around which one is varied at a time, and the other values of each. With base 2,
    # eight levels would need images of 128 pixels.
    setting = dict(base=1.5, channels=32, lr=0.01, interaction=1, num_scales=4, zero_scale=0.5)
    others = dict(
        base=[1.2, 1.3, 1.7, 2.0],
        channels=[16, 64],
        lr=[0.005, 0.001],
        interaction=[2, 4],
        num_scales=[2, 8],
        zero_scale=[0.25, 1.0],
    )
    # Widths of the stages by that of the first; those of the deformable network make up for the
    # parameters of its offset branches. Its schedule starts at a 25th of the peak.
    models = {
        'DSS v1': dict(
            config='configs/dss/scaleconvnet-s3_1xb128-20e_scalemnist.py',
            widths={16: [16, 32, 48], 32: [32, 63, 95], 64: [64, 126, 190]},
            rate=('param_scheduler.eta_max', 1),
        ),
        'Deformable DSS': dict(
            config='configs/deform_dss/scaleconvnet-s3-dcnv1_1xb128-20e_scalemnist.py',
            widths={16: [10, 20, 30], 32: [20, 39, 59], 64: [40, 78, 118]},
            rate=('optim_wrapper.optimizer.lr', 25),
        ),
    }

    def run_of(model, **values):
        channels = models[model]['widths'][values['channels']]
        rate, divided = models[model]['rate']
        return {
            'config': models[model]['config'],
            'options': {
                'model.backbone.scale_space.base': values['base'],
                'model.backbone.scale_space.num_scales': values['num_scales'],
                'model.backbone.scale_space.zero_scale': values['zero_scale'],
                'model.backbone.interaction': values['interaction'],
                'model.backbone.channels': channels,
                'model.head.in_channels': channels[-1] * 4,
                rate: values['lr'] / divided,
            },
        }

    return one_at_a_time(setting, others, models, run_of)


runs = make_runs()
pictures = [
    dict(kind='factors', name='factors', title='One hyper-parameter at a time: accuracy'),
    dict(
        kind='factors',
        name='errors',
        measure='error',
        title='One hyper-parameter at a time: equivariance error of the backbone',
    ),
]
del make_runs
