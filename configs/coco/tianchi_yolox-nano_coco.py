# Ten small patches of at most 2 % of the file, the threat model of the Tianchi challenge (arXiv 2012.13692), on YOLOX-nano.
#
#     sda attack configs/coco/tianchi_yolox-nano_coco.py --limit 16
#
# To expect: patch score 0.408, 69 % of an image's objects hidden, all of them in 6 of 16 images; in a file of 240 x 320
# pixels the patches are 3.3 %, too much.
#
# What exceeds ten connected pieces or 2 % of the area is no success and scores nothing: attack/patch_score is the challenge's
# (2 - area / 2 %) * (1 - boxes left / boxes before), mean over the images. The challenge had 500 x 500 pixels; ten patches of
# 16 x 16 are 2 % of 320 x 400, less than the files of COCO have.
_base_ = ['spgd_yolox-nano_coco_original.py']
attack = dict(
    _delete_=True, type='SwapPGD', k=10, kernel=dict(type='Patch', height=16, width=16), steps=100, early_stop=False,
    rest=4, apart=True)
threat = dict(max_components=10, max_area=0.02)
