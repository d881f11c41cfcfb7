# Does what breaks one demo model break the others? A classifier of each scene's largest object, two detectors and a
# segmenter look at the same 32 scenes; every source may change 205 pixels (1 %) of each file in 100 iterations.
#
#     sda transfer sparse_dense_attacks::transfer/demo.py
#
_base_ = ['demo_models.py']
limit = 32
attack = dict(type='SparsePGD', k=205, steps=100, early_stop=False)
sources = dict(
    resnet18=dict(model='resnet18'),
    faster_rcnn=dict(model='faster_rcnn'),
    yolox=dict(model='yolox'),
    semantic_fpn=dict(model='semantic_fpn'),
    detectors=dict(members=['faster_rcnn', 'yolox'], combine='worst'),
)
