# python tools/analysis_tools/train_demo.py faster_rcnn
# Trains the demo detector from scratch on 3000 scenes, in ten to twenty minutes on two CPU cores.
# Expected on the 64 unseen scenes: bbox_mAP 0.80, bbox_mAP_50 0.97. To score the weights with mmdet's own tool:
# python $(python -c "import mmdet; print(mmdet.__path__[0])")/.mim/tools/test.py \
#     configs/training/faster_rcnn_demo.py sparse_dense_attacks/demo/weights/faster_rcnn.pth
_base_ = ['../_base_/datasets/demo_scenes.py', '../_base_/models/demo_faster_rcnn.py']
custom_imports = dict(imports=['sparse_dense_attacks.demo.dataset'], allow_failed_imports=False)

load_from = None
max_epochs = 14
randomness = dict(seed=0)

train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='DemoScenes',
        split='train',
        count=3000,
        seed=0,
        data_root={{_base_.data_root}},
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=0, by_epoch=True, convert_to_iter_based=True),
]

val_dataloader = {{_base_.test_dataloader}}
val_evaluator = {{_base_.test_evaluator}}
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=max_epochs, save_optimizer=False),
)
work_dir = 'work_dirs/faster_rcnn_demo'
