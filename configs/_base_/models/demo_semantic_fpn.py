# A slim semantic FPN for the label maps of the demo scenes, built from mmseg's own classes; 0.8 million parameters.
# The weights come from `python tools/analysis_tools/train_demo.py semantic_fpn`.
default_scope = 'mmseg'
load_from = __import__('sparse_dense_attacks').__path__[0] + '/demo/weights/semantic_fpn.pth'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=32,  # in training only; the scenes need no padding
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        stem_channels=16,
        base_channels=16,
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
    ),
    neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=32, num_outs=4),
    decode_head=dict(
        type='FPNHead',
        in_channels=[32, 32, 32, 32],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=32,
        dropout_ratio=0,
        num_classes=7,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss',
            use_sigmoid=False,
            class_weight=[0.3, 1, 1, 1, 1, 1, 1],  # six of seven pixels are background
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
