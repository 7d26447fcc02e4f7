_base_ = [
    '../_base_/models/resnet18_digits.py',
    '../_base_/datasets/stir_bs128.py',
    '../_base_/schedules/adam_onecycle_bs128_20e.py',
    '../_base_/default_runtime.py',
]
