# Ten rows of pixels are to erase the pedestrians of Cityscapes from the label maps of DeepLabV3+ R-50: every pixel of a person is
# to become what the model finds likeliest after a person. Needs a GPU.
#
#     sda attack configs/cityscapes/rows_deeplabv3plus_r50_cityscapes_erase-person.py --limit 50
#
# Images without a person are left alone and count in no success rate.
#
# Data in data/cityscapes as mmseg expects it; the weights are those of the model zoo's metafile and are fetched by mmengine. The
# zoo states a clean mIoU of 79.61 on the 500 validation images.
_base_ = [
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    '../_base_/attacks/rows.py',
]
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=10)
goal = dict(type='TargetedPixels', erase='person', theta=0.9)
load_from = 'mmseg::deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024'
