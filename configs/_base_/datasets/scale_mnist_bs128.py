# MNIST-Scale, realization 0, has 10,000 training, 2,000 validation and 50,000 test images.
dataset_type = 'mmscale.ScaleMNIST'
data_root = 'data/mnist'
data_preprocessor = dict(num_classes=10, mean=[0.1307 * 255], std=[0.3081 * 255])
pipeline = [dict(type='PackInputs')]

# The images are in memory: a worker process would only cost time.
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type, data_root=data_root, split='train', realization=0, pipeline=pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type, data_root=data_root, split='val', realization=0, pipeline=pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type, data_root=data_root, split='test', realization=0, pipeline=pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
