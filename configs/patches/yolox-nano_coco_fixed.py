# One patch of 64 x 64 pixels in the middle of every image (416 x 416 input of YOLOX-nano, letterbox excluded) that hides what
# is around it, learned on 96 of the 128 COCO images and judged on the other 32.
#
# To expect: bbox_mAP_50 0.500 clean, 0.144 with the patch, 0.432 with a grey one, 0.424 with noise; 10 minutes of CPU time.
#
#     sda fit configs/patches/yolox-nano_coco_fixed.py
#
# Data and weights are looked for in $SDA_ASSETS (default: data/), see ../coco/spgd_yolox-nano_coco.py.
_base_ = ['../coco/spgd_yolox-nano_coco.py']

fit = dict(
    placement=dict(type='Fixed', size=64, position=(0.5, 0.5)),
    shape=dict(type='Patch', height=64, width=64),
    epochs=24,
    lr=0.1)
fit_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(96))))
test_dataloader = dict(batch_size=8, dataset=dict(indices=list(range(96, 128))))
