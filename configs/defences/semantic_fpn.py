# What defences are worth on the demo's semantic_fpn: undefended, static, and attacked through the defence.
#
#     sda defend sparse_dense_attacks::defences/semantic_fpn.py --limit 16
_base_ = ['../spgd_semantic_fpn.py', '../_base_/defences/every.py']
