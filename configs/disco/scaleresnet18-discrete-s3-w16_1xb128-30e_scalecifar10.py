_base_ = '../dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10.py'

model = dict(
    backbone=dict(
        scale_space=dict(base=2**0.5),
        lift=dict(type='mmscale.RepeatLift'),
        kernel=dict(type='mmscale.DiscreteBasis', effective_size=3),
    )
)
