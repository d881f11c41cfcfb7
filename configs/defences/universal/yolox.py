# What defences are worth against the universal patch of demo_yolox.py: undefended, static, and learned
# through the defence, on images that it was not learned on. First learn it undefended, and through each of the six defences of
# ../../_base_/defences/every.py (jpeg75, jpeg25, median3, bits4, resize_pad, total_variation):
#
#     sda fit sparse_dense_attacks::patches/demo_yolox.py --work-dir work_dirs/demo_yolox/undefended
#     sda fit sparse_dense_attacks::patches/demo_yolox.py --work-dir work_dirs/demo_yolox/median3 \
#         --cfg-options defence.type=Median defence.size=3
#     sda defend sparse_dense_attacks::defences/universal/yolox.py
_base_ = ['../../spgd_yolox.py', '../../_base_/defences/every.py']
attacks = dict(
    _delete_=True, patch=dict(type='UniversalPatch', artefact='work_dirs/demo_yolox/{defence}/patch.json'))
test_dataloader = dict(dataset=dict(indices=list(range(48, 64))))
