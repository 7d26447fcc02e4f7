_base_ = [
    '../_base_/models/scaleresnet18-w7-dcnv1_digits.py',
    '../_base_/datasets/scale_digits_bs50.py',
    '../_base_/schedules/adam_onecycle_bs50_10e_offset.py',
    '../_base_/default_runtime.py',
]

# Deformable convolution is the deformable scale convolution of a single level, the image.
model = dict(backbone=dict(scale_space=dict(num_scales=1)))
