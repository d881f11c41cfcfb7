# Do patches learned on one demo detector hide objects from the other? First learn them:
#
#     sda fit configs/patches/demo_faster_rcnn.py
#     sda fit configs/patches/demo_yolox.py
#     sda transfer configs/patches/transfer_demo.py
#
# Both are put into the 16 scenes that neither was learned on, beside the four controls.
models = dict(
    faster_rcnn=dict(config='sparse_dense_attacks::patches/demo_faster_rcnn.py'),
    yolox=dict(config='sparse_dense_attacks::patches/demo_yolox.py'),
)
sources = dict(
    faster_rcnn=dict(model='faster_rcnn', attack=dict(type='UniversalPatch', artefact='work_dirs/demo_faster_rcnn/patch.json')),
    yolox=dict(model='yolox', attack=dict(type='UniversalPatch', artefact='work_dirs/demo_yolox/patch.json')),
)
