# Sparse-PGD on the pixels of the scenes' files: a small classifier looks at the largest object of each, cut out.
#
#     sda attack configs/spgd_resnet18_largest.py
_base_ = [
    '_base_/models/demo_resnet18.py',
    '_base_/datasets/demo_largest.py',
    '_base_/attacks/spgd.py',
    '_base_/goals/untargeted.py',
    '_base_/runtime.py',
]
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.classification'], allow_failed_imports=False)
visualizer = dict(type='UniversalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])
attack = dict(k=205)  # 1 % of the file's pixels; a share would be one of those in the cut-out
threat = dict(grid='original')
