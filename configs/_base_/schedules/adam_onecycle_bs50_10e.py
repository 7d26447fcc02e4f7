# total_steps and max_epochs are the same number of epochs: change both.
optim_wrapper = dict(optimizer=dict(type='Adam', lr=0.01))
param_scheduler = dict(
    type='OneCycleLR', eta_max=0.01, total_steps=10, by_epoch=True, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=5)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=50)
