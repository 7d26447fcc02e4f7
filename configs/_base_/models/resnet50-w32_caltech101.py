# Half the width of ResNet-50, with the strides of Caffe, as its pretrained weights have it.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=50,
        stem_channels=64,
        base_channels=32,
        style='caffe',
        init_cfg=dict(
            type='Pretrained', checkpoint='data/caltech101/resnet50-w32.pth', prefix='backbone.'
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=1024,
        loss=dict(type='CrossEntropyLoss'),
        topk=(1,),
    ),
)
