# The objects of the 64 synthetic scenes as pictures of 64 x 64 pixels, cut out on first use; six classes.
data_root = 'data/demo_scenes/'

test_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='DemoCrops',
        split='val',
        count=64,
        seed=1,
        data_root=data_root,
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
test_evaluator = dict(type='Accuracy', topk=(1,))
