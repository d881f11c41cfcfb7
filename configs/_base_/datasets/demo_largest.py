# The 64 synthetic scenes for a classifier of single objects: each file with the class of its largest object, which is cut out.
data_root = 'data/demo_scenes/'

test_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='DemoLargest',
        split='val',
        count=64,
        seed=1,
        data_root=data_root,
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='CropObject'),
            dict(type='Resize', scale=(64, 64), interpolation='bicubic', backend='pillow'),
            dict(type='PackInputs', meta_keys=('sample_idx', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'crop')),
        ],
    ),
)
test_evaluator = dict(type='Accuracy', topk=(1,))
