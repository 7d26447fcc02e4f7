# This is the network of scaleconvnet.py, equivariant to rotation, with orders 0, 1 and 2.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmscale.SO2ConvNet',
        in_channels=1,
        channels=(22, 44, 66),
        kernel_size=7,
        max_order=2,
    ),
    neck=dict(type='mmscale.ScaleGlobalPooling', space='max', output_size=2),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=10,
        in_channels=3 * 66 * 4,
        mid_channels=[256],
        dropout_rate=0.7,
        norm_cfg=dict(type='BN1d'),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
