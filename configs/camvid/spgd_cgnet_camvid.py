# Sparse-PGD on CGNet: 1 % of the pixels of each CamVid test image (360 x 480), 100 iterations.
#
#     sda attack configs/camvid/spgd_cgnet_camvid.py
#
# To expect on every 15th image (--cfg-options test_dataloader.dataset.indices=[0,15,30,45,60,75]): mIoU 66.0 clean, 6.1 with 1 %
# of the pixels and 0.2 with attack.k=0.05; about 45 s an image on one idle core. All 78 images: mIoU 66.6 clean, aAcc 90.8.
#
# The other way round, how few pixels turn half of the right ones wrong: --cfg-options goal.theta=0.5 attack._delete_=True
# attack.type=SigmaZero attack.unit=pixel attack.steps=100 (a median of 637 of 172800 on every fifth image).
#
# Data and weights are looked for in $SDA_ASSETS (default: data/): camvid/images, camvid/masks, checkpoints.
_base_ = [
    '../_base_/models/cgnet_camvid.py',
    '../_base_/datasets/camvid.py',
    '../_base_/attacks/spgd.py',
    '../_base_/goals/untargeted_pixels.py',
    '../_base_/runtime.py',
]
load_from = '{{$SDA_ASSETS:data}}/checkpoints/cgnet_camvid_mmseg.pth'
visualizer = dict(type='SegLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')], alpha=0.6)
