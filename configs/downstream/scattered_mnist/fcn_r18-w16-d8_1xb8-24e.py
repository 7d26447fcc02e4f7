# This ordinary FCN of a quarter of ResNet-18's width trains from random weights, on masks of digits
# of 16 to 128 pixels on photographs of 256 pixels, made by
#   python tools/dataset_converters/scatter_objects.py mnist data/mnist data/scattered_mnist
_base_ = 'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'

norm_cfg = dict(type='BN', requires_grad=True)
# Nine pixels in ten are background. With equal weights, the network tells digits from background
# long before it tells digits from each other.
loss_decode = dict(class_weight=[0.1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
model = dict(
    data_preprocessor=dict(size=(256, 256)),
    pretrained=None,
    backbone=dict(base_channels=16, stem_channels=16, norm_cfg=norm_cfg, zero_init_residual=False),
    decode_head=dict(
        in_channels=128, channels=64, num_classes=11, norm_cfg=norm_cfg, loss_decode=loss_decode
    ),
    auxiliary_head=dict(
        in_channels=64, channels=32, num_classes=11, norm_cfg=norm_cfg, loss_decode=loss_decode
    ),
)

dataset = dict(
    _delete_=True,
    type='BaseSegDataset',
    data_root='data/scattered_mnist/',
    metainfo=dict(
        classes=('background', '0 - zero', '1 - one', '2 - two', '3 - three', '4 - four',
                 '5 - five', '6 - six', '7 - seven', '8 - eight', '9 - nine'),
    ),
    img_suffix='.png',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ],
)  # fmt: skip
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='DefaultSampler'),
    dataset=dict(**dataset, data_prefix=dict(img_path='images/train', seg_map_path='masks/train')),
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(**dataset, data_prefix=dict(img_path='images/val', seg_map_path='masks/val')),
)
test_dataloader = dict(
    batch_size=8,
    dataset=dict(**dataset, data_prefix=dict(img_path='images/test', seg_map_path='masks/test')),
)

max_epochs = 24
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=6)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True), checkpoint=dict(by_epoch=True, interval=1)
)
log_processor = dict(by_epoch=True)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, convert_to_iter_based=True),
]
