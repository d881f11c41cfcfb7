# CIFAR-10; training images are shifted by up to four pixels and flipped. mmpretrain fetches the data if it is not there.
data_root = 'data/cifar10'

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CIFAR10',
        split='train',
        data_root=data_root,
        pipeline=[
            dict(type='RandomCrop', crop_size=32, padding=4),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CIFAR10', split='test', data_root=data_root, test_mode=True, pipeline=[dict(type='PackInputs')]),
)
test_evaluator = dict(type='Accuracy', topk=(1,))
val_dataloader = test_dataloader
val_evaluator = test_evaluator
