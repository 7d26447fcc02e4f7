_base_ = [
    '../_base_/models/so2resnet50.py',
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/sgd_step_bs256_100e.py',
    '../_base_/default_runtime.py',
]
