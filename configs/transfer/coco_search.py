# What transfers between the real models of coco_real.py? 5 % of the pixels of each file, spent on all models at once, on flat
# features of one, and in patches.
#
#     sda transfer configs/transfer/coco_search.py
_base_ = ['coco_real.py']
allow_unequal = True  # patches of 9 x 9 count as one each; 190 are 15390 pixels, 5 % of 640 x 480
attack = dict(type='SparsePGD', k=0.05, steps=100, early_stop=False)
sources = dict(
    _delete_=True,
    worst=dict(members=['yolox_nano', 'deeplabv3', 'squeezenet'], combine='worst'),
    mean=dict(members=['yolox_nano', 'deeplabv3', 'squeezenet'], combine='mean'),
    flat=dict(model='deeplabv3', goal=dict(type='FeatureDispersion', layer='model.1.blocks')),
    patches=dict(members=['yolox_nano', 'deeplabv3', 'squeezenet'], combine='worst', attack=dict(
        type='StructuredSparsePGD', k=190, kernel=dict(type='Patch', height=9, width=9), steps=100, early_stop=False)),
)
