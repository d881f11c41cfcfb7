# Real weights, real images: what breaks YOLOX-nano, shown to DeepLabV3 (PASCAL VOC) and SqueezeNet (ImageNet), which see the same
# files of COCO. $SDA_ASSETS names the folder with weights and images (default: data/); run it in a checkout, whose
# tools/analysis_tools/assets.py knows the two plain models.
#
#     sda transfer configs/transfer/coco_real.py
#
# Plain modules can be victims only, so the sources are goals on the detector: no boxes, flat features, and both of its own.
models = dict(
    yolox_nano=dict(config='sparse_dense_attacks::coco/spgd_yolox-nano_coco_original.py'),
    deeplabv3=dict(module='tools.analysis_tools.assets:deeplabv3_on_files'),
    squeezenet=dict(module='tools.analysis_tools.assets:squeezenet_on_files'),
)
limit = 16
attack = dict(type='SparsePGD', k=0.01, steps=100, early_stop=False)
sources = dict(
    vanish=dict(model='yolox_nano'),
    flat=dict(model='yolox_nano', goal=dict(type='FeatureDispersion', layer='backbone')),
)
