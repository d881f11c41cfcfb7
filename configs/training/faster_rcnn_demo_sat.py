# Makes the demo detector robust to sparse perturbations: sAT (arXiv 2405.05075), trained on the adversarial images alone.
#
#     sda train configs/training/faster_rcnn_demo_sat.py
#
# From the plain weights; every batch is attacked with 2 % of the pixels, twice those of the evaluation. After every epoch 32
# scenes are evaluated clean and with 1 % of the pixels; the best weights by the latter are kept, and curves.png shows both.
#
# To expect on 32 scenes: bbox_mAP_50 0.914 clean and 0.187 after 100 iterations with 1 % of the pixels (the plain weights: 0.993
# and 0.001); 9 minutes of CPU time.
_base_ = './faster_rcnn_demo.py'
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.dataset'], allow_failed_imports=False)
load_from = __import__('sparse_dense_attacks').__path__[0] + '/demo/weights/faster_rcnn.pth'

max_epochs = 2
train_dataloader = dict(batch_size=8, dataset=dict(indices=1600))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=0, by_epoch=True, convert_to_iter_based=True),
]

goal = dict(type='Vanish')
train_attack = [
    dict(type='SparsePGD', k=0.02, steps=5, patience=10),
    dict(type='SparsePGD', k=0.02, steps=5, patience=10, gradient='unprojected'),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
val_dataloader = dict(dataset=dict(indices=32))
val_cfg = dict(
    _delete_=True,
    type='AttackValLoop',
    attack=dict(type='SparsePGD', k=0.01, steps=10, early_stop=False),
    goal=goal,
)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1, save_optimizer=True, save_best='adv/coco/bbox_mAP_50'))
custom_hooks = [
    dict(type='AdversarialTrainingHook', goal=goal, attack=train_attack, loss='sAT'),
    dict(type='ValidationCurveHook'),
]
work_dir = 'work_dirs/faster_rcnn_demo_sat'
