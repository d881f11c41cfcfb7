# As spgd_yolox-nano_coco.py, but an object is to be seen where none is.
#
#     sda attack configs/coco/spgd_yolox-nano_coco_fabricate.py --limit 8
#
# To expect: a new box on each of these 8 images, with attack.k=100 attack.early_stop=True after 6 forwards on average.
#
# More of them: --cfg-options goal.count=5
_base_ = ['spgd_yolox-nano_coco.py']
goal = dict(type='Fabricate')
