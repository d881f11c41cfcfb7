# How few pixels make half of an image's pixels wrong? ASLO on SegFormer MiT-B0 (short side 512), counting pixels. A GPU helps.
#
#     sda attack configs/ade20k/aslo_segformer_mit-b0_ade20k.py --limit 50
#
# Data in data/ade/ADEChallengeData2016 as mmseg expects it; the weights are those of the model zoo's metafile and are fetched by
# mmengine. The zoo states a clean mIoU of 37.41 on the 2000 validation images.
_base_ = [
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    '../_base_/attacks/aslo.py',
    '../_base_/goals/untargeted_pixels.py',
]
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

goal = dict(theta=0.5)
load_from = 'mmseg::segformer_mit-b0_8xb2-160k_ade20k-512x512'
