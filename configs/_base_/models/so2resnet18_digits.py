# The rotation-equivariant orders 0, 1 and 2 have 5 channels each, returned as magnitudes.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmscale.SO2ResNet_CIFAR',
        depth=18,
        in_channels=1,
        stem_channels=5,
        base_channels=5,
        max_order=2,
    ),
    neck=dict(type='mmscale.ScaleGlobalPooling', space='max'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=3 * 8 * 5,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
