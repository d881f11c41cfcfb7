# What defences are worth against the universal pixels of demo_semantic_fpn_pixels.py: undefended, static, and learned
# through the defence, on images that it was not learned on. First learn it undefended, and through each of the six defences of
# ../../_base_/defences/every.py (jpeg75, jpeg25, median3, bits4, resize_pad, total_variation):
#
#     sda fit sparse_dense_attacks::patches/demo_semantic_fpn_pixels.py --work-dir work_dirs/demo_semantic_fpn_pixels/undefended
#     sda fit sparse_dense_attacks::patches/demo_semantic_fpn_pixels.py --work-dir work_dirs/demo_semantic_fpn_pixels/median3 \
#         --cfg-options defence.type=Median defence.size=3
#     sda defend sparse_dense_attacks::defences/universal/semantic_fpn.py
_base_ = ['../../spgd_semantic_fpn.py', '../../_base_/defences/every.py']
attacks = dict(
    _delete_=True, patch=dict(type='UniversalPatch', artefact='work_dirs/demo_semantic_fpn_pixels/{defence}/patch.json'))
test_dataloader = dict(dataset=dict(indices=list(range(48, 64))))
