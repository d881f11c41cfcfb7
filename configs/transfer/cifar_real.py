# Two CIFAR-10 networks of one family and an adversarially trained one, real weights, each against each: 1 % of the pixels (10 of
# 1024). $SDA_ASSETS names the folder with weights and images (default: data/); run both commands in a checkout.
#
#     python tools/analysis_tools/assets.py work_dirs/cifar10
#     sda transfer configs/transfer/cifar_real.py
#
# The truth of the plain modules is what they say of the clean images.
models = dict(
    resnet20=dict(module='tools.analysis_tools.assets:resnet20'),
    resnet32=dict(module='tools.analysis_tools.assets:resnet32'),
    cnn_a_adv=dict(module='tools.analysis_tools.assets:cnn_a_adv'),
)
images = 'work_dirs/cifar10'
attack = dict(type='SparsePGD', k=0.01, steps=100, early_stop=False)
sources = dict(
    resnet20=dict(model='resnet20'),
    resnet32=dict(model='resnet32'),
    cnn_a_adv=dict(model='cnn_a_adv'),
    resnets=dict(members=['resnet20', 'resnet32'], combine='worst'),
)
