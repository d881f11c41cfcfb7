# Which elements of a dense perturbation (eps 6/255) does it take for Swin-T to see the least likely class? A GPU is advisable.
#
#     sda attack configs/imagenet/wi_fgsm_swin-tiny_imagenet_targeted.py --limit 500
#
# Data in data/imagenet as mmpretrain expects it (val/, meta/val.txt); the weights are those of the model zoo's metafile and are
# fetched by mmengine. The zoo states a clean top-1 accuracy of 81.18 on all 50000 images.
_base_ = ['mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', '../_base_/attacks/wi_fgsm.py', '../_base_/goals/targeted.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

load_from = 'mmpretrain::swin-tiny_16xb64_in1k'
