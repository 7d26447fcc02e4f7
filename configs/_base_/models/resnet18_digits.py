# This ResNet-18 has an eighth of the width, for images of 32x32 pixels and one channel.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, in_channels=1, stem_channels=8, base_channels=8),
    # The scale-equivariant counterparts have max pooling, too.
    neck=dict(type='mmscale.ScaleGlobalPooling', space='max'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
