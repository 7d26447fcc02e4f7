# Digits of scikit-learn have 24 to 16 pixels in the training, and down to 7 in the test.
dataset_type = 'mmscale.ScaleDigits'
data_preprocessor = dict(num_classes=10, mean=[27.5], std=[63.0])
pipeline = [dict(type='PackInputs')]

# The images are in memory: a worker process would only cost time.
train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, split='train', scale_range=(2 / 3, 1.0), pipeline=pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, split='val', scale_range=(2 / 3, 1.0), pipeline=pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, split='test', scale_range=(0.3, 1.0), pipeline=pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
