# In how few connected groups of pixels can ResNet-50 be fooled? GSE on the 224 x 224 input. A GPU is advisable.
#
#     sda attack configs/imagenet/gse_resnet50_imagenet.py --limit 500
#
# Data in data/imagenet as mmpretrain expects it (val/, meta/val.txt); the weights are those of the model zoo's metafile and are
# fetched by mmengine. The zoo states a clean top-1 accuracy of 76.55 on all 50000 images.
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../_base_/attacks/gse.py', '../_base_/goals/untargeted.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

load_from = 'mmpretrain::resnet50_8xb32_in1k'
