_base_ = [
    '../_base_/models/scaleresnet50.py',
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/sgd_step_bs256_100e_offset.py',
    '../_base_/default_runtime.py',
]

# Deformable convolution is the deformable scale convolution of a single level, the image.
model = dict(
    backbone=dict(
        scale_space=dict(num_scales=1),
        deform=dict(type='mmscale.DeformScaleConv', stages=(False, True, True, True)),
    )
)
