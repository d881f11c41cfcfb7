# Sparse-PGD on a small segmenter of 64 synthetic scenes; both are part of the package.
#
#     sda attack configs/spgd_semantic_fpn.py
#
# To expect: mIoU 80.6 on the clean scenes, 14.3 after 204 pixels (1 %) and 100 iterations, which turn 36 % of the pixels that
# were right; about 140 s of CPU time.
_base_ = [
    '_base_/models/demo_semantic_fpn.py',
    '_base_/datasets/demo_label_maps.py',
    '_base_/attacks/spgd.py',
    '_base_/goals/untargeted_pixels.py',
    '_base_/runtime.py',
]
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.segmentation'], allow_failed_imports=False)
visualizer = dict(type='SegLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')], alpha=0.6)
