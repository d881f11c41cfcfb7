# A patch on every person, of side 0.4 x the square root of its box's area, that hides people from YOLOX-nano; learned on the
# people in 96 of the 128 COCO images, with what happens to a printed patch, and judged on those in the other 32.
#
#     sda fit configs/patches/yolox-nano_coco_persons.py
#
# Data and weights are looked for in $SDA_ASSETS (default: data/), see ../coco/spgd_yolox-nano_coco.py.
_base_ = ['../coco/spgd_yolox-nano_coco.py']

goal = dict(type='Vanish', classes=['person'])
fit = dict(
    placement=dict(type='OnObjects', classes=['person'], scale=0.4, measure='area'),
    shape=dict(type='Patch', height=64, width=64),
    transforms=dict(rotation=10, scale=(0.9, 1.1), brightness=0.1, contrast=(0.9, 1.1)),
    tv=0.1,
    epochs=16,
    lr=0.05)
fit_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(96))))
test_dataloader = dict(batch_size=8, dataset=dict(indices=list(range(96, 128))))
