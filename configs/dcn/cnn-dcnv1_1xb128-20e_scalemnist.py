# Deformable convolution is the deformable scale convolution of a single level, the image.
_base_ = [
    '../_base_/models/scaleconvnet-dcnv1.py',
    '../_base_/datasets/scale_mnist_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e_offset.py',
    '../_base_/default_runtime.py',
]
