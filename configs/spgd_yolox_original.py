# As spgd_yolox.py, but what changes are pixels of the image files, and the network sees them through a letterbox of 128 x 128.
#
#     sda attack configs/spgd_yolox_original.py
#
# k = 1 % are 204 of the file's 128 x 160 pixels; the stored PNGs have its size, and the annotations fit them.
_base_ = ['spgd_yolox.py']
threat = dict(grid='original')

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
