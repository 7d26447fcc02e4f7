_base_ = '../dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10.py'

# Scales, width and support of the published network for STL-10.
model = dict(
    backbone=dict(
        scale_space=dict(base=2**0.5),
        lift=dict(type='mmscale.RepeatLift'),
        kernel=dict(type='mmscale.HermiteBasis', size=7, effective_size=3, width=0.9),
    )
)
