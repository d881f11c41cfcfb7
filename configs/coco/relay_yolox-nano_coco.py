# Relay on YOLOX-nano: 300 of the 173056 input pixels (416 x 416, letterbox excluded), 100 iterations, the strongest attack here
# at that price: Sparse-PGD, and sigma-zero on what that leaves, until nothing scores 0.01, which is what this detector reports.
#
# To expect on 32 images: bbox_mAP 0.404 clean, 0.010 to 0.013 adversarial; 0.09 to 0.10 with attack.k=150.
#
#     sda attack configs/coco/relay_yolox-nano_coco.py --limit 32
#
# Data and weights are looked for in $SDA_ASSETS (default: data/), see spgd_yolox-nano_coco.py.
_base_ = ['spgd_yolox-nano_coco.py']

attack = dict(_delete_=True, type='Relay', k=300, steps=100)
# all that average precision reads: down to the lowest score that is reported, objects that were hardly found before included
goal = dict(score_thr=0.01, undetected=True)
