# A patch in the upper left corner, away from what it hides (the place of DPatch, arXiv 1806.02299, where it is 40 x 40 pixels).
#
#     sda fit configs/patches/yolox-nano_coco_corner.py
#
# To expect: bbox_mAP_50 0.500 clean, 0.465 with the patch, 0.485 with a grey one; 9 % of the objects hidden (grey: none).
# From a corner a small detector sees too little of it.
_base_ = ['yolox-nano_coco_fixed.py']

fit = dict(
    placement=dict(size=40, position=(0, 0)),
    shape=dict(height=40, width=40))
