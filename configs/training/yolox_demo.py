# python tools/analysis_tools/train_demo.py yolox
# Trains the demo YOLOX from scratch on 3000 scenes; 14 minutes of CPU time.
# Expected on the 64 unseen scenes: bbox_mAP 0.80, bbox_mAP_50 0.97.
_base_ = [
    '../_base_/datasets/demo_scenes.py',
    '../_base_/models/demo_yolox.py',
    '../_base_/schedules/demo.py',
]
custom_imports = dict(imports=['sparse_dense_attacks.demo.dataset'], allow_failed_imports=False)

load_from = None
train_dataloader = dict(
    batch_size=8,
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
val_dataloader = {{_base_.test_dataloader}}
val_evaluator = {{_base_.test_evaluator}}
work_dir = 'work_dirs/yolox_demo'
