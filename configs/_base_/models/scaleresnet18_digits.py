# DSS v1 has the width of resnet18_digits.py: three levels share the same parameters.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmscale.ScaleResNet_CIFAR',
        depth=18,
        scale_space=dict(base=2.0, num_scales=3, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianLift'),
        in_channels=1,
        stem_channels=8,
        base_channels=8,
    ),
    neck=dict(type='mmscale.ScaleGlobalPooling', scale='max', space='max'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
