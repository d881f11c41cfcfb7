# Makes the demo segmenter robust to sparse perturbations: sTRADES (arXiv 2405.05075), the clean loss plus a divergence.
#
#     python tools/train.py configs/training/semantic_fpn_demo_strades.py
#
# All else as in semantic_fpn_demo_sat.py.
_base_ = './semantic_fpn_demo_sat.py'

custom_hooks = [
    dict(
        type='AdversarialTrainingHook',
        goal={{_base_.goal}},
        attack={{_base_.train_attack}},
        loss='sTRADES',
        weight=3.0,
        ratio=0.5,
    ),
    dict(type='ValidationCurveHook'),
]
work_dir = 'work_dirs/semantic_fpn_demo_strades'
