# What defences are worth against the universal pixels of demo_resnet18_pixels.py: undefended, static, and learned
# through the defence, on images that it was not learned on. First learn it undefended, and through each of the six defences of
# ../../_base_/defences/every.py (jpeg75, jpeg25, median3, bits4, resize_pad, total_variation):
#
#     sda fit sparse_dense_attacks::patches/demo_resnet18_pixels.py --work-dir work_dirs/demo_resnet18_pixels/undefended
#     sda fit sparse_dense_attacks::patches/demo_resnet18_pixels.py --work-dir work_dirs/demo_resnet18_pixels/median3 \
#         --cfg-options defence.type=Median defence.size=3
#     sda defend sparse_dense_attacks::defences/universal/resnet18.py
_base_ = ['../../spgd_resnet18.py', '../../_base_/defences/every.py']
attacks = dict(
    _delete_=True, patch=dict(type='UniversalPatch', artefact='work_dirs/demo_resnet18_pixels/{defence}/patch.json'))
test_dataloader = dict(dataset=dict(indices=list(range(192, 253))))
