# Instance segmentation: Sparse-PGD hides the masks of Mask R-CNN R-50 FPN without touching a pixel of an object, that is of its
# annotated mask. 0.5 % of the pixels outside may change, 100 iterations. A GPU is advisable.
#
#     sda attack configs/coco/spgd_mask-rcnn_r50_fpn_coco_outside.py --limit 100
#
# Only on the objects: --cfg-options threat.where=inside; by their boxes instead of their masks:
# --cfg-options victim.use_masks=False
#
# Data in data/coco as mmdet expects it; the weights are those of the model zoo's metafile and are fetched by mmengine. The zoo
# states a clean bbox_mAP of 38.2 and segm_mAP of 34.7 on val2017.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/attacks/spgd.py', '../_base_/goals/vanish.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=0.005)
threat = dict(where='outside')
victim = dict(use_masks=True)
load_from = 'mmdet::mask-rcnn_r50_fpn_1x_coco'
