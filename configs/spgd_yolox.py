# Sparse-PGD hides the objects of 64 synthetic scenes from a small one-stage detector; both are part of the package.
#
#     sda attack configs/spgd_yolox.py
#
# To expect: bbox_mAP_50 0.966 on the clean scenes, 0.007 after 204 pixels (1 %) and 100 iterations; about 100 s of CPU time.
_base_ = [
    '_base_/models/demo_yolox.py',
    '_base_/datasets/demo_scenes.py',
    '_base_/attacks/spgd.py',
    '_base_/goals/vanish.py',
    '_base_/runtime.py',
]
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.dataset'], allow_failed_imports=False)
visualizer = dict(type='DetLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])
