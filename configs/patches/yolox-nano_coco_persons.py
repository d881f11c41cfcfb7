# A patch on every person, of side 0.4 x the square root of its box's area, that hides people from YOLOX-nano; learned on the
# people in 96 of the 128 COCO images and judged on those in the other 32.
#
# To expect: AP_50 of people 0.677 clean, 0.226 with the patch (0.227 with seed 1), 0.503 with a grey one, 0.570 with noise;
# 20 minutes of CPU time. After 60 epochs 0.248 (0.291). Most people show the patch 20 to 60 pixels wide, and a pattern of
# 64 x 64 has more to learn than that shows: 0.321 after 40 epochs.
#
#     sda fit configs/patches/yolox-nano_coco_persons.py
#
# With all that happens to a printed one: --cfg-options fit.transforms.rotation=20 fit.transforms.contrast=[0.8,1.2]
#     fit.transforms.noise=0.1 fit.tv=2.5
#
# Data and weights are looked for in $SDA_ASSETS (default: data/), see ../coco/spgd_yolox-nano_coco.py.
_base_ = ['../coco/spgd_yolox-nano_coco.py']

goal = dict(type='Vanish', classes=['person'])
fit = dict(
    placement=dict(type='OnObjects', classes=['person'], scale=0.4, measure='area'),
    shape=dict(type='Patch', height=32, width=32),
    transforms=dict(scale=(0.8, 1.25), rotation=10, brightness=0.1),
    epochs=120,
    lr=0.1)
fit_dataloader = dict(batch_size=2, dataset=dict(indices=list(range(96))))
test_dataloader = dict(batch_size=8, dataset=dict(indices=list(range(96, 128))))
