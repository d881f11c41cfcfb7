# What defences are worth on the demo's yolox: undefended, static, and attacked through the defence.
#
#     sda defend sparse_dense_attacks::defences/yolox.py --limit 16
_base_ = ['../spgd_yolox.py', '../_base_/defences/every.py']
