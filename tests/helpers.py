"""Every attack in small, for tests that run them all; toy victims and data come from the public testing room."""
import dataclasses
import os
from pathlib import Path

import torch
from torch import nn

from sparse_dense_attacks import ATTACKS, PGD0, Untargeted
from sparse_dense_attacks.attacks import BudgetAttack
from sparse_dense_attacks.cli.doctor import installed
from sparse_dense_attacks.testing import (
    Detections,
    Linear,
    Net,
    corner_images,
    objective,
    pad_boxes,
    pictures,
)
from sparse_dense_attacks.victims import TorchClassifier
from sparse_dense_attacks.victims.base import Scene
from tests import forks

__all__ = ['BUDGET_ATTACKS', 'DETERMINISTIC', 'EVERY_ATTACK', 'SMALL', 'Detections', 'Linear', 'Net',
           'corner_images', 'darker', 'descent', 'make_attack', 'noisy', 'objective', 'pad_boxes', 'padded',
           'pictures', 'stock_test']


def descent(model, inputs, labels):
    """A foreign attack: a few sign steps on a random half of the pixels."""
    x, keep = inputs, torch.rand_like(inputs[:1, :1]) > 0.5
    for _ in range(12):
        probe = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(probe), labels, reduction='sum')
        x = (x + 0.1 * torch.autograd.grad(loss, probe)[0].sign() * keep).clamp(0, 1)
    return x


def darker(x, by=0.5):
    """A defence of one's own."""
    return x * by


def noisy(x):
    """Another, which draws."""
    return x + 0.2 * torch.randn(x.shape).to(x)


SMALL = dict(k=3, steps=6)  # hyper-parameters for tests that need an attack to run, not to be strong
SPECIAL = {  # what makes the others small, and structured attacks comparable
    'ASLOAddOn': dict(base=PGD0(k=1, steps=6)),  # fits into a single pixel
    'BudgetSearch': dict(base=PGD0(k=1, steps=3), searches=3),
    'ForeignAttack': dict(function='tests.helpers.descent'),  # by name: test ids must not hold addresses
    'GSE': dict(iters=6, k_hat=3, search_steps=3),
    'SparseAutoAttack': dict(queries=6),
    'StructuredSparsePGD': dict(kernel='pixel'),
}
# UniversalPatch does not look at what it is given, but needs to be told of its surroundings
EVERY_ATTACK = [(name, SPECIAL.get(name, {})) for name in ATTACKS if name != 'UniversalPatch']
EVERY_ATTACK += [('SparsePGD', dict(gradient=g)) for g in ('unprojected', 'ensemble')]
DETERMINISTIC = ('ASLO', 'GSE', 'ScreenedCorners', 'SigmaZero')
BUDGET_ATTACKS = [(name, options) for name, options in EVERY_ATTACK if issubclass(ATTACKS.get(name), BudgetAttack)]


def make_attack(spec, **options):
    """An attack of EVERY_ATTACK with as many of ``options`` as it knows."""
    name, special = spec
    fields = {field.name for field in dataclasses.fields(ATTACKS.get(name))}
    return ATTACKS.build(name, **{key: value for key, value in (SMALL | options).items() if key in fields}, **special)


class _Cropping(Scene):
    """A scene whose victim sees each image without its padding, as detectors do."""

    def __init__(self, scene, sizes):
        self.scene, self.sizes = scene, sizes
        self.images, self.region = scene.images, scene.region
        self.keys, self.labels = scene.keys, scene.labels

    def logits(self, x, rows):
        sizes = [self.sizes[row] for row in rows]
        return torch.cat([self.scene.model(image[None, :, :h, :w])
                          for image, (h, w) in zip(x, sizes, strict=True)])


def padded(alone, size):
    """An objective of one image again, with a larger image of ``size`` beside it in the batch."""
    h, w = alone.images.shape[-2:]
    images, region = torch.zeros(2, 3, *size), torch.zeros(2, 1, *size, dtype=torch.bool)
    images[0, :, :h, :w], region[0, :, :h, :w] = alone.images[0], True
    images[1], region[1] = pictures(1, 3, *size, seed=4)[0], True
    labels = torch.cat([alone.scene.labels, torch.tensor([0])])
    scene = TorchClassifier(alone.scene.model).open(images, labels, region, [*alone.keys, 'b'])
    return Untargeted().objective(_Cropping(scene, [(h, w), size]))


def stock_test(library: str, dataset: Path, weights: Path, cwd: Path, ours=False) -> str:
    """What a library's own test script says, in a process where our package is not there unless ``ours``.

    open-mmlab's own mmcv cannot be imported by mmseg without its compiled module: there ours is needed in any case.
    The process takes tiny numbers for zero, as our commands do: CGNet's weights make it twenty times as slow otherwise.
    """
    import mmcv
    import mmengine
    compiled = any(Path(mmcv.__file__).parent.glob('_ext.*'))
    ours = ours or library == 'mmseg' and bool(installed('mmcv')) and not compiled
    script = Path(mmengine.__file__).parents[1] / library / '.mim/tools/test.py'
    through = ['-m', 'sparse_dense_attacks.compat'] if ours else []
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    if ours:
        environment['PYTHONPATH'] = str(forks.ROOT)
    return forks.run([*through, script, dataset / 'config.py', weights], cwd / 'printed.txt', cwd=cwd, environment=environment,
                     flush_denormal=True)
