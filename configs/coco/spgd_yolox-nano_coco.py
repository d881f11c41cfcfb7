# Sparse-PGD on YOLOX-nano: 300 of the 173056 input pixels (416 x 416, letterbox excluded), 100 iterations.
#
#     sda attack configs/coco/spgd_yolox-nano_coco.py --limit 32
#
# To expect on these 32 images: bbox_mAP 0.404 clean and 0.063 with 300 pixels (0.000 with attack.k=1000); the last digit
# depends on the number of threads.
#
# Data and weights are looked for in $SDA_ASSETS (default: data/): coco/val2017, coco/annotations, checkpoints.
# The annotation file is a subset of 128 images; for all of COCO add
#     --cfg-options test_dataloader.dataset.ann_file=annotations/instances_val2017.json \
#                   test_evaluator.ann_file=data/coco/annotations/instances_val2017.json
_base_ = ['mmdet::yolox/yolox_nano_8xb8-300e_coco.py', '../_base_/attacks/spgd.py', '../_base_/goals/vanish.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=300)

coco = '{{$SDA_ASSETS:data}}/coco/'
test_dataloader = dict(
    num_workers=2,
    persistent_workers=False,
    dataset=dict(data_root=coco, ann_file='annotations/instances_val2017_128.json'))
test_evaluator = dict(ann_file=coco + 'annotations/instances_val2017_128.json')
load_from = '{{$SDA_ASSETS:data}}/checkpoints/yolox_nano_coco_mmdet.pth'
