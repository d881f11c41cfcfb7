# Makes the demo classifier robust to sparse perturbations: sAT (arXiv 2405.05075), trained on the adversarial images alone.
#
#     sda train configs/training/resnet18_demo_sat.py
#
# All else as in resnet18_demo_strades.py.
#
# To expect: accuracy 94.9 on the clean objects and 88.9 under Sparse-AutoAttack with 20 pixels (the plain weights: 94.9 and
# 17.8); 12 minutes of CPU time.
_base_ = './resnet18_demo_strades.py'

custom_hooks = [
    dict(type='AdversarialTrainingHook', goal={{_base_.goal}}, attack={{_base_.train_attack}}, loss='sAT'),
    dict(type='ValidationCurveHook'),
]
work_dir = 'work_dirs/resnet18_demo_sat'
