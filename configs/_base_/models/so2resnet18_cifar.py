# The rotation-equivariant orders 0, 1 and 2 have 10 channels each, returned as magnitudes.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmscale.SO2ResNet_CIFAR',
        depth=18,
        stem_channels=10,
        base_channels=10,
        max_order=2,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=3 * 8 * 10,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
