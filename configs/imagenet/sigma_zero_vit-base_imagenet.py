# How few pixels change the class a ViT-B/16 sees? sigma-zero on the 224 x 224 input, counting pixels. A GPU is advisable.
#
#     sda attack configs/imagenet/sigma_zero_vit-base_imagenet.py --limit 500
#
# Data in data/imagenet as mmpretrain expects it (val/, meta/val.txt); the weights (MAE, fine-tuned) are those of the model zoo's
# metafile and are fetched by mmengine. The zoo states a clean top-1 accuracy of 82.37 on all 50000 images.
_base_ = [
    'mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py',
    '../_base_/attacks/sigma_zero.py',
    '../_base_/goals/untargeted.py',
]
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)
custom_hooks = []  # the config's EMAHook belongs to training: the weights of the zoo are the averaged ones

test_dataloader = dict(batch_size=16)
load_from = 'mmpretrain::vit-base-p16_32xb128-mae_in1k'
