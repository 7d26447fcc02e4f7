# Digits of STIR-MNIST have 17 to 32 pixels in the training (evaluation 1), 17 to 64 in the test.
dataset_type = 'mmscale.STIR'
data_root = 'data/mnist'
data_preprocessor = dict(num_classes=10, mean=[0.0], std=[255.0])
pipeline = [dict(type='PackInputs')]

# The images are in memory: a worker process would only cost time.
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type, data_root=data_root, split='train', sizes=(17, 32), pipeline=pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type, data_root=data_root, split='val', sizes=(17, 32), pipeline=pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, data_root=data_root, split='test', pipeline=pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
