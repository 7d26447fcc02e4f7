# This ordinary RetinaNet of a quarter of ResNet-18's width trains from random weights, on digits of
# 16 to 128 pixels on photographs of 256 pixels, made by
#   python tools/dataset_converters/scatter_objects.py mnist data/mnist data/scattered_mnist
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        base_channels=16,
        stem_channels=16,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[32, 64, 128], out_channels=64, start_level=0),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # Sides have 2, 2.5 and 3.2 strides: the smallest digits have 16 pixels, at stride 8.
        anchor_generator=dict(octave_base_scale=2),
    ),
)

pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(256, 256)),  # keeps the size, and records it for the head
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(
    _delete_=True,
    type='CocoDataset',
    data_root='data/scattered_mnist/',
    metainfo=dict(
        classes=('0 - zero', '1 - one', '2 - two', '3 - three', '4 - four', '5 - five', '6 - six',
                 '7 - seven', '8 - eight', '9 - nine'),
    ),
    pipeline=pipeline,
)  # fmt: skip
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        **dataset, ann_file='annotations/train.json', data_prefix=dict(img='images/train/')
    ),
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        **dataset,
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=8,
    dataset=dict(
        **dataset,
        ann_file='annotations/test.json',
        data_prefix=dict(img='images/test/'),
        test_mode=True,
    ),
)
val_evaluator = dict(ann_file='data/scattered_mnist/annotations/val.json')
test_evaluator = dict(ann_file='data/scattered_mnist/annotations/test.json')

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs, val_interval=6)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
