# The rotation-equivariant orders 0, 1 and 2 have 32 channels each, returned as magnitudes.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmscale.SO2ResNet',
        depth=50,
        stem_channels=32,
        base_channels=32,
        max_order=2,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=3 * 32 * 32,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
