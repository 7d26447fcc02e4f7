# The three-layer network of the MNIST-Scale literature has 494,000 parameters with its head.
# With one level, it is the ordinary CNN.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmscale.ScaleConvNet',
        scale_space=dict(base=2.0, num_scales=1, zero_scale=0.5),
        lift=dict(type='mmscale.GaussianLift'),
        in_channels=1,
        channels=(32, 63, 95),
        kernel_size=7,
    ),
    neck=dict(type='mmscale.ScaleGlobalPooling', scale='max', space='max', output_size=2),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=10,
        in_channels=95 * 4,
        mid_channels=[256],
        dropout_rate=0.7,
        norm_cfg=dict(type='BN1d'),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
