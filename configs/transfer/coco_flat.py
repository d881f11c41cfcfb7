# Do flat features of a segmenter break a detector? The one cell of coco_real.py between tasks that nearly lay above its
# controls, on 40 images that were not looked at when it was chosen.
#
# Found: a change of .490 on YOLOX-nano, .423 under the best control, .066 [.018, .114] more; SqueezeNet .375 (.383).
#
#     sda transfer configs/transfer/coco_flat.py
_base_ = ['coco_real.py']
models = dict(yolox_nano=dict(options={'test_dataloader.dataset.indices': list(range(16, 56))}))
limit = 40
sources = dict(
    _delete_=True,
    flat=dict(model='deeplabv3', goal=dict(type='FeatureDispersion', layer='model.1.blocks')),
)
victims = ['yolox_nano', 'squeezenet']
