# Structured Sparse-PGD on RTMDet-tiny: four patches of 16 x 16 pixels anywhere in the 640 x 640 input (letterbox excluded).
#
#     sda attack configs/coco/patches_rtmdet_tiny_coco.py --limit 100
#
# Letters instead of patches: --cfg-options attack.kernel="{'type': 'Shape', 'name': 'F'}"
#
# Data in data/coco as mmdet expects it; the weights are those of the model zoo's metafile and are fetched by mmengine. The zoo
# states a clean bbox_mAP of 40.9 on val2017.
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', '../_base_/attacks/patches.py', '../_base_/goals/vanish.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)
custom_hooks = []  # those of the config belong to training: the weights of the zoo are the averaged ones

load_from = 'mmdet::rtmdet_tiny_8xb32-300e_coco'
