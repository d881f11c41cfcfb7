# Sparse-PGD adversarial training of PreActResNet-18 on CIFAR-10 with the published settings (arXiv 2405.05075), for 20 pixels.
# A GPU is needed: 39000 iterations of batch 128, each with 20 of the attack.
#
#     sda train configs/training/preactresnet18_cifar10_strades.py
#
# Every batch is attacked with 120 pixels, six times those of the evaluation, along projected or unprojected gradients at random.
# Every five epochs the first 1000 test images are evaluated clean and with 20 pixels; the best weights by the latter are kept.
# Data is looked for in data/cifar10.
_base_ = ['../_base_/models/preactresnet18_cifar10.py', '../_base_/datasets/cifar10.py']
custom_imports = dict(imports=['sparse_dense_attacks'], allow_failed_imports=False)

max_epochs = 100
randomness = dict(seed=0)
goal = dict(type='Untargeted')
train_attack = [
    dict(type='SparsePGD', k=120, steps=20, patience=10),
    dict(type='SparsePGD', k=120, steps=20, patience=10, gradient='unprojected'),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type='MultiStepLR', milestones=[25, 75], gamma=0.1, by_epoch=True)

val_dataloader = dict(dataset=dict(indices=1000))
val_cfg = dict(type='AttackValLoop', attack=dict(type='SparsePGD', k=20, steps=20), goal=goal)
test_cfg = dict(type='TestLoop')

custom_hooks = [dict(type='AdversarialTrainingHook', goal=goal, attack=train_attack, loss='sTRADES', weight=3.0)]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=5, max_keep_ckpts=1, save_best='adv/accuracy/top1'))
