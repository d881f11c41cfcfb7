# Sparse-PGD hides the objects of 64 synthetic scenes from a small Faster R-CNN; both are part of the package.
#
#     sda attack configs/spgd_faster_rcnn.py
#
# To expect: bbox_mAP_50 0.976 on the clean scenes, 0.001 after 204 pixels (1 %) and 100 iterations; about 90 s on 2 idle cores.
_base_ = [
    '_base_/models/demo_faster_rcnn.py',
    '_base_/datasets/demo_scenes.py',
    '_base_/attacks/spgd.py',
    '_base_/goals/vanish.py',
    '_base_/runtime.py',
]
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.dataset'], allow_failed_imports=False)
visualizer = dict(type='DetLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])
