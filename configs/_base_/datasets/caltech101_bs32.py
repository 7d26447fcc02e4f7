# Photographs of 100 classes, crops of 96x96 pixels. `studies/measurements/prepare_caltech101.py`
# makes the folder.
dataset_type = 'CustomDataset'
data_root = 'data/caltech101'
data_preprocessor = dict(
    num_classes=100,
    mean=[104.0, 117.0, 123.0],  # BGR
    std=[1.0, 1.0, 1.0],
    to_rgb=False,
)

# Pillow, unlike OpenCV, does not alias where it shrinks.
resize = dict(type='ResizeEdge', scale=96, edge='short', backend='pillow', interpolation='bicubic')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='RandomCrop', crop_size=96),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='CenterCrop', crop_size=96),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='images',
        ann_file='train_0.txt',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
test_dataloader = dict(
    batch_size=50,
    num_workers=0,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='images',
        ann_file='test_0.txt',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_dataloader = test_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
