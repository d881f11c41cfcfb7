# A slim ResNet-18 for the objects of the demo scenes, built from mmpretrain's own classes; 0.7 million parameters.
# The weights come from `python tools/analysis_tools/train_demo.py resnet18`.
default_scope = 'mmpretrain'
load_from = __import__('sparse_dense_attacks').__path__[0] + '/demo/weights/resnet18.pth'

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=6,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=6, in_channels=128, topk=(1,), loss=dict(type='CrossEntropyLoss')),
)
