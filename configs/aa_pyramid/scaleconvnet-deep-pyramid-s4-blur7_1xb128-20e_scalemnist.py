_base_ = './scaleconvnet-deep-balanced_1xb128-20e_scalemnist.py'

# Without the finest level, twice the image's size: half the cost, most of it spent on channels.
model = dict(
    backbone=dict(scale_space=dict(num_scales=4, first_level=-1), channels=(32, 80, 128)),
    head=dict(in_channels=128 * 4),
)

# `--tta`: the mean of two views, the second half a level larger. Its levels lie between the first's.
views = [
    dict(type='mmscale.FixedRescale', scale=scale, center=(14.5, 14.5), antialias=False)
    for scale in (1.0, 2.0**0.25)
]
tta_model = dict(type='mmpretrain.AverageClsScoreTTA')
tta_pipeline = [dict(type='TestTimeAug', transforms=[views, [dict(type='PackInputs')]])]
