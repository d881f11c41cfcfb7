# What defences are worth on the demo's faster_rcnn: undefended, static, and attacked through the defence.
#
#     sda defend sparse_dense_attacks::defences/faster_rcnn.py --limit 16
_base_ = ['../spgd_faster_rcnn.py', '../_base_/defences/every.py']
