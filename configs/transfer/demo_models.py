# The four demo models, for tables of transfer.
models = dict(
    resnet18=dict(config='sparse_dense_attacks::spgd_resnet18_largest.py'),
    faster_rcnn=dict(config='sparse_dense_attacks::spgd_faster_rcnn.py'),
    yolox=dict(config='sparse_dense_attacks::spgd_yolox.py'),
    semantic_fpn=dict(config='sparse_dense_attacks::spgd_semantic_fpn.py'),
)
