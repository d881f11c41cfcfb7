# Sparse-PGD on PSPNet R-50: 0.5 % of the pixels of each Cityscapes image (1024 x 2048), 100 iterations. Needs a GPU.
#
#     sda attack configs/cityscapes/spgd_pspnet_r50_cityscapes.py --limit 50
#
# Data in data/cityscapes as mmseg expects it; the weights are those of the model zoo's metafile and are fetched by mmengine. The
# zoo states a clean mIoU of 77.85 on the 500 validation images.
_base_ = [
    'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    '../_base_/attacks/spgd.py',
    '../_base_/goals/untargeted_pixels.py',
]
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=0.005)
load_from = 'mmseg::pspnet_r50-d8_4xb2-40k_cityscapes-512x1024'
