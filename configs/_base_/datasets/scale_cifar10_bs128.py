_base_ = './scale_cifar10_bs16.py'

train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=250)
test_dataloader = dict(batch_size=250)
