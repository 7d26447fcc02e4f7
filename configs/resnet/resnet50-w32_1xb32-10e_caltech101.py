_base_ = [
    '../_base_/models/resnet50-w32_caltech101.py',
    '../_base_/datasets/caltech101_bs32.py',
    '../_base_/schedules/sgd_cosine_bs32_10e.py',
    '../_base_/default_runtime.py',
]
