# A slim YOLOX for the demo scenes, built from mmdet's own classes; 1.3 million parameters.
# The weights come from `python tools/analysis_tools/train_demo.py yolox`.
default_scope = 'mmdet'
load_from = __import__('sparse_dense_attacks').__path__[0] + '/demo/weights/yolox.pth'

model = dict(
    type='YOLOX',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='CSPDarknet',
        deepen_factor=0.33,
        widen_factor=0.1875,
        out_indices=(2, 3, 4),
    ),
    neck=dict(type='YOLOXPAFPN', in_channels=[48, 96, 192], out_channels=48, num_csp_blocks=1),
    bbox_head=dict(type='YOLOXHead', num_classes=6, in_channels=48, feat_channels=48, strides=(8, 16, 32)),
    train_cfg=dict(assigner=dict(type='SimOTAAssigner', center_radius=2.5)),
    test_cfg=dict(score_thr=0.01, nms=dict(type='nms', iou_threshold=0.65)),
)
