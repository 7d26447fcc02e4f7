# DSS v1 has a dense Gaussian scale space of four levels, base 2.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmscale.ScaleResNet_CIFAR',
        depth=18,
        scale_space=dict(base=2.0, num_scales=4, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianLift'),
    ),
    neck=dict(type='mmscale.ScaleGlobalPooling', scale='max', space='avg'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
