# What transfers between the demo models? 5 % of the pixels; beside plain sources flat features, patches, and all models at once.
#
#     sda transfer sparse_dense_attacks::transfer/demo_search.py
_base_ = ['demo_models.py']
limit = 16
allow_unequal = True  # 41 patches of 5 x 5 are 1024 pixels, too
attack = dict(type='SparsePGD', k=1024, steps=50, early_stop=False)
sources = dict(
    yolox=dict(model='yolox'),
    semantic_fpn=dict(model='semantic_fpn'),
    flat=dict(model='semantic_fpn', goal=dict(type='FeatureDispersion', layer='backbone')),
    patches=dict(model='semantic_fpn', attack=dict(
        type='StructuredSparsePGD', k=41, kernel=dict(type='Patch', height=5, width=5), steps=50, early_stop=False)),
    dense_models=dict(members=['yolox', 'semantic_fpn'], combine='worst'),
)
