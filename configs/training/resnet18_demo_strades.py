# Makes the demo classifier robust to sparse perturbations: sTRADES (arXiv 2405.05075), from the plain weights.
#
#     sda train configs/training/resnet18_demo_strades.py
#
# Every batch is attacked with 120 of the 4096 pixels, six times those of the evaluation. After every second epoch the 253 objects
# are evaluated clean and with 20 pixels; the best weights by the latter are kept, and curves.png shows both.
#
# To expect: accuracy 90.5 on the clean objects and 85.4 under Sparse-AutoAttack with 20 pixels (the plain weights: 94.9 and
# 17.8); 13 minutes of CPU time.
_base_ = './resnet18_demo.py'
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.classification'], allow_failed_imports=False)
load_from = __import__('sparse_dense_attacks').__path__[0] + '/demo/weights/resnet18.pth'

goal = dict(type='Untargeted')
train_attack = [
    dict(type='SparsePGD', k=120, steps=10, patience=10),
    dict(type='SparsePGD', k=120, steps=10, patience=10, gradient='unprojected'),
]
train_cfg = dict(val_interval=2)
val_cfg = dict(_delete_=True, type='AttackValLoop', attack=dict(type='SparsePGD', k=20, steps=20), goal=goal)
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=1, save_optimizer=True, save_best='adv/accuracy/top1'))
custom_hooks = [
    dict(type='AdversarialTrainingHook', goal=goal, attack=train_attack, loss='sTRADES', weight=3.0),
    dict(type='ValidationCurveHook'),
]
work_dir = 'work_dirs/resnet18_demo_strades'
