# How few pixels hide everything RetinaNet R-50 FPN detects? sigma-zero on the resized image, counting pixels. A GPU is advisable.
#
#     sda attack configs/coco/sigma_zero_retinanet_r50_fpn_coco.py --limit 100
#
# Data in data/coco as mmdet expects it; the weights are those of the model zoo's metafile and are fetched by mmengine. The zoo
# states a clean bbox_mAP of 36.5 on val2017.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/attacks/sigma_zero.py', '../_base_/goals/vanish.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

load_from = 'mmdet::retinanet_r50_fpn_1x_coco'
