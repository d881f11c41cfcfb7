# Do convolutional and attention backbones break together? Classifiers of mmpretrain's zoo look at the photos of a folder; what
# each says of the clean ones is the truth.
#
#     sda transfer sparse_dense_attacks::transfer/backbones.py --cfg-options images=photos
#
# It needs the zoo's weights, which mmengine fetches: without a network, or weights in its cache, it stops with one line.
models = dict(
    resnet50=dict(config='mmpretrain::resnet/resnet50_8xb32_in1k.py'),
    convnext=dict(config='mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'),
    swin=dict(config='mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'),
    deit=dict(config='mmpretrain::deit/deit-small_4xb256_in1k.py'),
)
images = 'photos'
limit = 32
attack = dict(type='SparsePGD', k=2508, steps=100, early_stop=False)  # 5 % of 224 x 224
sources = dict(
    resnet50=dict(model='resnet50'),
    convnext=dict(model='convnext'),
    swin=dict(model='swin'),
    deit=dict(model='deit'),
    convolutions=dict(members=['resnet50', 'convnext'], combine='worst'),
)
