# What defences are worth on the demo's resnet18: undefended, static, and attacked through the defence.
#
#     sda defend sparse_dense_attacks::defences/resnet18.py --limit 16
_base_ = ['../spgd_resnet18.py', '../_base_/defences/every.py']
