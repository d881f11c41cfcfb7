# CGNet (0.5 million parameters) for the 11 classes of CamVid; label 11 means no class. The zoo's own is for Cityscapes.
default_scope = 'mmseg'

norm_cfg = dict(type='BN', eps=1e-3)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[105.658, 103.330, 99.625],
        std=[1, 1, 1],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='CGNet',
        norm_cfg=norm_cfg,
        in_channels=3,
        num_channels=(32, 64, 128),
        num_blocks=(3, 21),
        dilations=(2, 4),
        reductions=(8, 16),
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=256,
        in_index=2,
        channels=256,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0,
        num_classes=11,
        ignore_index=11,
        norm_cfg=norm_cfg,
    ),
    test_cfg=dict(mode='whole'),
)
