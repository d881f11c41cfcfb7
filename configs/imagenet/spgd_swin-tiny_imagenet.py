# Sparse-PGD on Swin-T: 200 of the 50176 input pixels (224 x 224, 0.4 %), at most 100 iterations. A GPU is advisable.
#
#     sda attack configs/imagenet/spgd_swin-tiny_imagenet.py --limit 1000
#
# Data in data/imagenet as mmpretrain expects it (val/, meta/val.txt); the weights are those of the model zoo's metafile and are
# fetched by mmengine. The zoo states a clean top-1 accuracy of 81.18 on all 50000 images.
_base_ = ['mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', '../_base_/attacks/spgd.py', '../_base_/goals/untargeted.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=200, early_stop=True)  # accuracy asks for one wrong class, not for the worst
load_from = 'mmpretrain::swin-tiny_16xb64_in1k'
