# As spgd_yolox-nano_coco.py, but what changes are pixels of the JPEG files (most of them 640 x 480), not of the 416 x 416 input.
#
# To expect on 32 images: bbox_mAP 0.404 clean, 0.092 adversarial (0.046 where the input is attacked), 0.000 with attack.k=0.01.
#
#     sda attack configs/coco/spgd_yolox-nano_coco_original.py --limit 32
#
# A share of the file's pixels instead of 300: --cfg-options attack.k=0.01
_base_ = ['spgd_yolox-nano_coco.py']
threat = dict(grid='original')
