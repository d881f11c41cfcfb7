# As spgd_yolox-nano_coco.py, but the objects are to be taken for something else.
#
#     sda attack configs/coco/spgd_yolox-nano_coco_mislabel.py --limit 8
#
# To expect on these 8 images: 9 of 24 objects taken for something else, on 3 images all of them; bbox_mAP 0.411 clean, 0.169
# attacked.
# With attack.k=1000 attack.early_stop=True: 19 of 24 objects, 7 images.
#
# A given class: --cfg-options goal.target=16 (or its name)
_base_ = ['spgd_yolox-nano_coco.py']
goal = dict(type='Mislabel')
