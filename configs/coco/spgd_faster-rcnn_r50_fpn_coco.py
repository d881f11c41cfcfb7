# Sparse-PGD on Faster R-CNN R-50 FPN: 0.5 % of the pixels of each resized image, 100 iterations. A GPU is advisable.
#
#     sda attack configs/coco/spgd_faster-rcnn_r50_fpn_coco.py
#
# Data in data/coco as mmdet expects it; the weights are those of the model zoo's metafile and are fetched by mmengine.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/attacks/spgd.py', '../_base_/goals/vanish.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=0.005)
load_from = 'mmdet::faster-rcnn_r50_fpn_1x_coco'
