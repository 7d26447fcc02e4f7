_base_ = '../dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10.py'

# Six functions in place of nine taps, and so two thirds of the parameters.
model = dict(
    backbone=dict(
        scale_space=dict(base=2**0.5),
        lift=dict(type='mmscale.RepeatLift'),
        kernel=dict(type='mmscale.GaussianDerivativeBasis', max_order=2, width=0.7, truncate=2.0),
    )
)
