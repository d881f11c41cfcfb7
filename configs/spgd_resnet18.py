# Sparse-PGD on a small classifier of the 253 objects in 64 synthetic scenes; both are part of the package.
#
#     sda attack configs/spgd_resnet18.py
#
# To expect: accuracy 94.9 on the clean objects, 3.6 after 40 of 4096 pixels (1 %) and at most 100 iterations; 25 s of CPU time.
_base_ = [
    '_base_/models/demo_resnet18.py',
    '_base_/datasets/demo_crops.py',
    '_base_/attacks/spgd.py',
    '_base_/goals/untargeted.py',
    '_base_/runtime.py',
]
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.classification'], allow_failed_imports=False)
visualizer = dict(type='UniversalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])
attack = dict(early_stop=True)  # accuracy asks for one wrong class, not for the worst
