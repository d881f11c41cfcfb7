# Sparse-PGD on ResNet-50: 200 of the 50176 input pixels (224 x 224, 0.4 %), at most 100 iterations. A GPU is advisable.
#
#     sda attack configs/imagenet/spgd_resnet50_imagenet.py --limit 1000
#
# Data in data/imagenet as mmpretrain expects it (val/, meta/val.txt); the weights are those of the model zoo's metafile and are
# fetched by mmengine. The zoo states a clean top-1 accuracy of 76.55 on all 50000 images. For a target add
#     --cfg-options goal.type=Targeted goal.target=least_likely
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../_base_/attacks/spgd.py', '../_base_/goals/untargeted.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

attack = dict(k=200, early_stop=True)  # accuracy asks for one wrong class, not for the worst
load_from = 'mmpretrain::resnet50_8xb32_in1k'
