"""mmpretrain's classifier families with random weights, small enough for a laptop, from the configs in the installed wheel."""
import functools
from dataclasses import dataclass, field
from pathlib import Path

import mmpretrain
import mmpretrain.models
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

CONFIGS = Path(mmpretrain.__file__).parent / '.mim' / 'configs'
CLASSES = 6


@dataclass(frozen=True)
class Family:
    """One classifier family.

    Attributes:
        config: file below mmpretrain's config folder.
        change: dotted key -> value, applied to the model config.
        size: (height, width) of its images.
    """
    config: str
    change: dict = field(default_factory=dict)
    size: tuple = (64, 64)


def build(family: Family) -> nn.Module:
    """The model in evaluation mode, with the same random weights each time; nothing is downloaded."""
    cfg = Config.fromfile(CONFIGS / family.config)
    head = cfg.model.head if cfg.model.head.get('num_classes') else cfg.model.backbone  # where the last layer is
    head.num_classes = CLASSES
    if 'topk' in cfg.model.head:
        cfg.model.head.topk = (1,)
    cfg.model.data_preprocessor = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor')  # as the runner does
    cfg.model.data_preprocessor.num_classes = CLASSES
    for key, value in family.change.items():
        *path, last = key.split('.')
        functools.reduce(getattr, path, cfg.model)[last] = value
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).eval()
        _settle(model, torch.randn(4, channels(model), *family.size))
    return model


def channels(model) -> int:
    """How many the first layer takes."""
    return next(layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv2d))


def _settle(model, noise) -> None:
    """Give batch norms the statistics of noise: without any, signals and gradients die away on their way through a deep model."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(noise)
    for norm in norms:
        norm.eval()


def make_batch(sizes, labels=None, depth=3, stacked=False) -> dict:
    """A batch as the test dataloader yields it: raw uint8 images and their samples.

    Args:
        sizes: (height, width) of each image.
        labels: class of each image; their numbers by default.
        depth: channels of the images.
        stacked: as default_collate does, instead of mmengine's pseudo_collate.
    """
    rng = np.random.default_rng(0)
    inputs = [torch.from_numpy(rng.integers(0, 256, (depth, *size), dtype=np.uint8)) for size in sizes]
    samples = [DataSample(metainfo=dict(img_path=f'data/val/{index}.png', sample_idx=index, img_shape=size, ori_shape=size))
               for index, size in enumerate(sizes)]
    for index, sample in enumerate(samples):
        sample.set_gt_label(index if labels is None else labels[index])
    return dict(inputs=torch.stack(inputs) if stacked else inputs, data_samples=samples)


TINY_VIT = {'backbone.arch': dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=48), 'backbone.img_size': 64,
            'head.in_channels': 32}

FAMILIES = {
    'resnet': Family('resnet/resnet18_8xb32_in1k.py'),
    'resnext': Family('resnext/resnext50-32x4d_8xb32_in1k.py'),
    'vgg': Family('vgg/vgg11_8xb32_in1k.py', {
        'backbone.num_classes': -1, 'neck': dict(type='GlobalAveragePooling'),
        'head': dict(type='LinearClsHead', num_classes=CLASSES, in_channels=512)}),
    'lenet': Family('lenet/lenet5_mnist.py', size=(32, 32)),
    'inception': Family('inception_v3/inception-v3_8xb32_in1k.py', size=(80, 80)),
    'densenet': Family('densenet/densenet121_4xb256_in1k.py'),
    'mobilenet_v2': Family('mobilenet_v2/mobilenet-v2_8xb32_in1k.py'),
    'mobilenet_v3': Family('mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py'),
    'efficientnet': Family('efficientnet/efficientnet-b0_8xb32_in1k.py'),
    'shufflenet': Family('shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py'),
    'regnet': Family('regnet/regnetx-400mf_8xb128_in1k.py'),
    'repvgg': Family('repvgg/repvgg-A0_8xb32_in1k.py'),
    'hrnet': Family('hrnet/hrnet-w18_4xb32_in1k.py'),
    'convnext': Family('convnext/convnext-tiny_32xb128_in1k.py'),
    'vit': Family('vision_transformer/vit-base-p16_32xb128-mae_in1k.py', TINY_VIT),
    'deit': Family('deit/deit-tiny_4xb256_in1k.py', TINY_VIT),
    'deit_distilled': Family('deit/deit-tiny-distilled_4xb256_in1k.py', TINY_VIT),
    'swin': Family('swin_transformer/swin-tiny_16xb64_in1k.py', {'backbone.img_size': 64, 'backbone.pad_small_map': True}),
    'mlp_mixer': Family('mlp_mixer/mlp-mixer-base-p16_64xb64_in1k.py', {
        'backbone.arch': dict(embed_dims=32, num_layers=2, tokens_mlp_dims=16, channels_mlp_dims=48), 'head.in_channels': 32,
        'backbone.img_size': 64}),
    'poolformer': Family('poolformer/poolformer-s12_32xb128_in1k.py'),
    'conformer': Family('conformer/conformer-tiny-p16_8xb128_in1k.py'),
    'levit': Family('levit/levit-128s_8xb256_in1k.py', {'backbone.img_size': 64}),
}
