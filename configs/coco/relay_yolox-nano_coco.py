# Relay on YOLOX-nano: 300 of the 173056 input pixels (416 x 416, letterbox excluded), 100 iterations, the strongest attack here
# at that price: Sparse-PGD, and sigma-zero on what that leaves, until nothing scores 0.01, which is what this detector reports.
#
# To expect on 32 images: bbox_mAP 0.404 clean, 0.010 to 0.013 adversarial; 0.09 to 0.10 with attack.k=150.
#
#     sda attack configs/coco/relay_yolox-nano_coco.py --limit 32
#
# Data and weights are looked for in $SDA_ASSETS (default: data/), see spgd_yolox-nano_coco.py.
_base_ = ['mmdet::yolox/yolox_nano_8xb8-300e_coco.py', '../_base_/attacks/relay.py', '../_base_/goals/vanish_all.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=300)

coco = '{{$SDA_ASSETS:data}}/coco/'
test_dataloader = dict(
    num_workers=2,
    persistent_workers=False,
    dataset=dict(data_root=coco, ann_file='annotations/instances_val2017_128.json'))
test_evaluator = dict(ann_file=coco + 'annotations/instances_val2017_128.json')
load_from = '{{$SDA_ASSETS:data}}/checkpoints/yolox_nano_coco_mmdet.pth'
