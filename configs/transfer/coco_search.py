# What transfers between the real models of coco_real.py? 5 % of the pixels of each file, spent on two models at once and shown to
# the third, on flat features of one, and in patches.
#
#     sda transfer configs/transfer/coco_search.py
_base_ = ['coco_real.py']
allow_unequal = True  # patches of 9 x 9 count as one each; 190 are 15390 pixels, 5 % of 640 x 480
attack = dict(type='SparsePGD', k=0.05, steps=100, early_stop=False)
sources = dict(
    _delete_=True,
    not_deeplabv3=dict(members=['yolox_nano', 'squeezenet'], combine='worst'),
    not_yolox_nano=dict(members=['deeplabv3', 'squeezenet'], combine='worst'),
    not_squeezenet=dict(members=['yolox_nano', 'deeplabv3'], combine='worst'),
    flat=dict(model='deeplabv3', goal=dict(type='FeatureDispersion', layer='model.1.blocks')),
    patches=dict(members=['yolox_nano', 'squeezenet'], combine='worst', attack=dict(
        type='StructuredSparsePGD', k=190, kernel=dict(type='Patch', height=9, width=9), steps=100, early_stop=False)),
)
