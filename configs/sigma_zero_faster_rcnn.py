# How few pixels hide every object of a scene? sigma-zero on the demo detector, counting pixels.
#
#     sda attack configs/sigma_zero_faster_rcnn.py --limit 16
#
# To expect: a median of 66 of 20480 pixels on the first 16 scenes.
_base_ = [
    '_base_/models/demo_faster_rcnn.py',
    '_base_/datasets/demo_scenes.py',
    '_base_/attacks/sigma_zero.py',
    '_base_/goals/vanish.py',
    '_base_/runtime.py',
]
custom_imports = dict(imports=['sparse_dense_attacks', 'sparse_dense_attacks.demo.dataset'], allow_failed_imports=False)
visualizer = dict(type='DetLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])
