# PreActResNet-18 with softplus for CIFAR-10, on images in [0, 1] that are not normalised otherwise; 11.2 million parameters.
default_scope = 'mmpretrain'

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=10,
        mean=[0.0, 0.0, 0.0],
        std=[255.0, 255.0, 255.0],
    ),
    backbone=dict(type='PreActResNet', blocks=(2, 2, 2, 2), activation='Softplus'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512, topk=(1,), loss=dict(type='CrossEntropyLoss')),
)
