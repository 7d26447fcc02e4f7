# Photographs of 100 classes; in training each has half of its size on its canvas.
# `studies/measurements/prepare_caltech101.py` makes the folder.
dataset_type = 'CustomDataset'
data_root = 'data/caltech101'
data_preprocessor = dict(num_classes=100)

# Normalised before they shrink, so that the mean colour surrounds the photograph.
normalize = dict(type='Normalize', mean=[104.0, 117.0, 123.0], std=[1.0, 1.0, 1.0], to_rgb=False)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=128, edge='short'),
    dict(type='RandomCrop', crop_size=128),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    normalize,
    dict(type='mmscale.RandomRescale', scale_range=(0.5, 0.5)),
    dict(type='PackInputs'),
]
# The photograph fills the canvas; the evaluation over scale shrinks it.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=128, edge='short'),
    dict(type='CenterCrop', crop_size=128),
    normalize,
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
