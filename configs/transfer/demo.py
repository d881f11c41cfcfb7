# Does what breaks one demo model break the others? A classifier of each scene's largest object, two detectors and a
# segmenter look at the same 32 scenes; every source may change 205 pixels (1 %) of each file, 100 iterations long.
#
#     sda transfer configs/transfer/demo.py
#
# To expect: see docs/transfer.md.
models = dict(
    resnet18=dict(config='sparse_dense_attacks::spgd_resnet18_largest.py'),
    faster_rcnn=dict(config='sparse_dense_attacks::spgd_faster_rcnn.py'),
    yolox=dict(config='sparse_dense_attacks::spgd_yolox.py'),
    semantic_fpn=dict(config='sparse_dense_attacks::spgd_semantic_fpn.py'),
)
attack = dict(type='SparsePGD', k=205, steps=100, early_stop=False)
sources = dict(
    resnet18=dict(model='resnet18'),
    faster_rcnn=dict(model='faster_rcnn'),
    yolox=dict(model='yolox'),
    semantic_fpn=dict(model='semantic_fpn'),
)
limit = 32
