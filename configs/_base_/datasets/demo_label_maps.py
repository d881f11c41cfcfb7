# The label maps of the 64 synthetic scenes, 128 x 160 pixels, drawn on first use: background and six classes.
data_root = 'data/demo_scenes/'

test_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='DemoLabelMaps',
        split='val',
        count=64,
        seed=1,
        data_root=data_root,
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
