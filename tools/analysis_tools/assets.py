"""The plain PyTorch models and the images of $SDA_ASSETS, for the measurements in this folder.

    python tools/analysis_tools/assets.py work_dirs/cifar10    # the images of CIFAR-10 as files
"""
import argparse
import csv
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sparse_dense_attacks import InputError


def load_model(name: str) -> nn.Module:
    """'resnet20', 'resnet32', 'cnn_a_adv', 'squeezenet' or 'deeplabv3', frozen as it is under attack."""
    root = assets_root()
    spec = importlib.util.spec_from_file_location('asset_models', root / 'models.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    builders = dict(squeezenet=module.squeezenet, deeplabv3=module.voc_segmenter,
                    cnn_a_adv=module.cnn_a_adv)
    if name in builders:
        model = builders[name]()
    else:
        model = module.cifar_resnet(int(name.removeprefix('resnet')))
    return model.requires_grad_(False)


def resnet20() -> nn.Module:
    """ResNet-20 for images of CIFAR-10."""
    return load_model('resnet20')


def resnet32() -> nn.Module:
    """ResNet-32 for images of CIFAR-10."""
    return load_model('resnet32')


def cnn_a_adv() -> nn.Module:
    """A small CNN for images of CIFAR-10, adversarially trained."""
    return load_model('cnn_a_adv')


class _Resized(nn.Module):
    """A model of images of one long or short side, on those of any size."""

    def __init__(self, model: nn.Module, size: Callable[[int, int], tuple[int, int]]):
        super().__init__()
        self.model, self.size = model, size

    def forward(self, x: Tensor) -> Tensor:
        size = self.size(*x.shape[-2:])
        return self.model(F.interpolate(x, size, mode='bilinear', antialias=True))


def squeezenet_on_files() -> nn.Module:
    """SqueezeNet for images of any size, resized to 224 x 224 as a whole."""
    return _Resized(load_model('squeezenet'), lambda height, width: (224, 224))


def deeplabv3_on_files() -> nn.Module:
    """DeepLabV3 for images of any size, the long side resized to 513."""
    def size(height: int, width: int) -> tuple[int, int]:
        scale = 513 / max(height, width)
        return round(height * scale), round(width * scale)

    return _Resized(load_model('deeplabv3'), size)


def load_cifar() -> tuple[Tensor, Tensor]:
    """Images (150, 3, 32, 32) in [0, 1] and labels (150,)."""
    data = np.load(assets_root() / 'cifar10/test_150.npz')
    return torch.from_numpy(data['x']).permute(0, 3, 1, 2) / 255, torch.from_numpy(data['y']).long()


def write_cifar(folder: Path) -> None:
    """The images of load_cifar() as PNG files, ``000.png`` and so on."""
    data = np.load(assets_root() / 'cifar10/test_150.npz')
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(data['x']):
        Image.fromarray(pixels).save(folder / f'{i:03}.png')


def load_nips17(count: int) -> tuple[Tensor, Tensor]:
    """The first images (count, 3, 224, 224) in [0, 1] of NIPS 2017, and labels counted from 0."""
    root = assets_root() / 'nips17'
    with (root / 'images.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))[:count]
    pictures = [_picture(root / f"images/{row['ImageId']}.png", (224, 224)) for row in rows]
    return torch.cat(pictures), torch.tensor([int(row['TrueLabel']) - 1 for row in rows])


def load_voc(count: int, long_side: int = 513) -> list[tuple[Tensor, Tensor]]:
    """The first COCO images with VOC masks.

    Each is an image (1, 3, H, W) in [0, 1] with labels (1, H, W), 255 where none is known.
    """
    root, found = assets_root() / 'coco', []
    for path in sorted((root / 'voc21_masks').glob('*.png'))[:count]:
        with Image.open(path) as mask:
            scale = long_side / max(mask.size)
            size = round(mask.width * scale), round(mask.height * scale)
            labels = torch.from_numpy(np.array(mask.resize(size, Image.Resampling.NEAREST))).long()
        found.append((_picture(root / f'val2017/{path.stem}.jpg', size), labels[None]))
    return found


def _picture(path: Path, size: tuple[int, int]) -> Tensor:
    with Image.open(path) as image:
        pixels = np.array(image.convert('RGB').resize(size, Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def assets_root() -> Path:
    root = Path(os.environ.get('SDA_ASSETS', 'data'))
    if not (root / 'models.py').is_file():
        raise InputError(f'{root}/models.py not found: set SDA_ASSETS to the folder with the '
                         'weights and images')
    return root


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Write the images of CIFAR-10 as PNG files.')
    parser.add_argument('folder', type=Path)
    write_cifar(parser.parse_args().folder)
