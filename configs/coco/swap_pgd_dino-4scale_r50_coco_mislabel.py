# 100 pixels, exchanged one by one, are to make DINO (4 scales, R-50) take what it sees for something else. Needs a GPU.
#
#     sda attack configs/coco/swap_pgd_dino-4scale_r50_coco_mislabel.py --limit 100
#
# A given class: --cfg-options goal.target=16 (or its name)
#
# Data in data/coco as mmdet expects it; the weights are those of the model zoo's metafile and are fetched by mmengine. The zoo
# states a clean bbox_mAP of 49.0 on val2017.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/attacks/swap_pgd.py', '../_base_/goals/mislabel.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=100)
load_from = 'mmdet::dino-4scale_r50_8xb2-12e_coco'
