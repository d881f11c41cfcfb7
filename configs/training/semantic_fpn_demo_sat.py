# Makes the demo segmenter robust to sparse perturbations: sAT (arXiv 2405.05075) on half of the images of every batch.
#
#     sda train configs/training/semantic_fpn_demo_sat.py
#
# From the plain weights; four of eight images are attacked with 4 % of the pixels, twice those of the evaluation. After every
# epoch 32 scenes are evaluated clean and with 2 % of the pixels; the best weights by the latter are kept, and curves.png shows
# both.
#
# To expect on 32 scenes: mIoU 79.3 clean and 19.5 after 100 iterations with 2 % of the pixels (the plain weights: 80.4 and 7.8);
# 11 minutes of CPU time.
_base_ = './semantic_fpn_demo.py'
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.segmentation'], allow_failed_imports=False)
load_from = __import__('sparse_dense_attacks').__path__[0] + '/demo/weights/semantic_fpn.pth'

max_epochs = 4
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=0, by_epoch=True, convert_to_iter_based=True),
]

goal = dict(type='UntargetedPixels')
train_attack = [
    dict(type='SparsePGD', k=0.04, steps=5, patience=10),
    dict(type='SparsePGD', k=0.04, steps=5, patience=10, gradient='unprojected'),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
val_dataloader = dict(dataset=dict(indices=32))
val_cfg = dict(
    _delete_=True,
    type='AttackValLoop',
    attack=dict(type='SparsePGD', k=0.02, steps=10, early_stop=False),
    goal=goal,
)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1, save_optimizer=True, save_best='adv/mIoU'))
custom_hooks = [
    dict(type='AdversarialTrainingHook', goal=goal, attack=train_attack, loss='sAT', ratio=0.5),
    dict(type='ValidationCurveHook'),
]
work_dir = 'work_dirs/semantic_fpn_demo_sat'
