# Real weights, real images: YOLOX-nano (COCO), DeepLabV3 (PASCAL VOC) and SqueezeNet (ImageNet), each against each on the
# files of COCO, with 1 % of their pixels. $SDA_ASSETS names the folder with weights and images (default: data/); run it in a
# checkout, whose tools/analysis_tools/assets.py knows the two plain models.
#
#     sda transfer configs/transfer/coco_real.py
#
# The truth of the plain modules is what they say of the clean images. Beside the three sources flat features of the segmenter,
# which need no head, and all three models at once.
models = dict(
    yolox_nano=dict(config='sparse_dense_attacks::coco/spgd_yolox-nano_coco_original.py'),
    deeplabv3=dict(module='tools.analysis_tools.assets:deeplabv3_on_files'),
    squeezenet=dict(module='tools.analysis_tools.assets:squeezenet_on_files'),
)
limit = 16
attack = dict(type='SparsePGD', k=0.01, steps=100, early_stop=False)
sources = dict(
    yolox_nano=dict(model='yolox_nano'),
    deeplabv3=dict(model='deeplabv3'),
    squeezenet=dict(model='squeezenet'),
    flat=dict(model='deeplabv3', goal=dict(type='FeatureDispersion', layer='model.1.blocks')),
    together=dict(members=['yolox_nano', 'deeplabv3', 'squeezenet'], combine='worst'),
)
