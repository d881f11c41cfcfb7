"""Every attack in small, for tests that run them all; toy victims and data come from the public testing room."""
import dataclasses

import torch
from torch import nn

from sparse_dense_attacks import ATTACKS, PGD0
from sparse_dense_attacks.attacks import BudgetAttack
from sparse_dense_attacks.testing import (
    Detections,
    Linear,
    Net,
    corner_images,
    objective,
    pad_boxes,
    pictures,
)

__all__ = ['BUDGET_ATTACKS', 'DETERMINISTIC', 'EVERY_ATTACK', 'SMALL', 'Detections', 'Linear', 'Net',
           'corner_images', 'descent', 'make_attack', 'objective', 'pad_boxes', 'pictures']


def descent(model, inputs, labels):
    """A foreign attack: a few sign steps on a random half of the pixels."""
    x, keep = inputs, torch.rand_like(inputs[:1, :1]) > 0.5
    for _ in range(12):
        probe = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(probe), labels, reduction='sum')
        x = (x + 0.1 * torch.autograd.grad(loss, probe)[0].sign() * keep).clamp(0, 1)
    return x


SMALL = dict(k=3, steps=6)  # hyper-parameters for tests that need an attack to run, not to be strong
SPECIAL = {  # what makes the others small, and structured attacks comparable
    'ASLOAddOn': dict(base=PGD0(k=1, steps=6)),  # fits into a single pixel
    'BudgetSearch': dict(base=PGD0(k=1, steps=3), searches=3),
    'ForeignAttack': dict(function='tests.helpers.descent'),  # by name: test ids must not hold addresses
    'GSE': dict(iters=6, k_hat=3, search_steps=3),
    'SparseAutoAttack': dict(queries=6),
    'StructuredSparsePGD': dict(kernel='pixel'),
}
EVERY_ATTACK = [(name, SPECIAL.get(name, {})) for name in ATTACKS]
EVERY_ATTACK += [('SparsePGD', dict(gradient=g)) for g in ('unprojected', 'ensemble')]
DETERMINISTIC = ('ASLO', 'GSE', 'ScreenedCorners', 'SigmaZero')
BUDGET_ATTACKS = [(name, options) for name, options in EVERY_ATTACK if issubclass(ATTACKS.get(name), BudgetAttack)]


def make_attack(spec, **options):
    """An attack of EVERY_ATTACK with as many of ``options`` as it knows."""
    name, special = spec
    fields = {field.name for field in dataclasses.fields(ATTACKS.get(name))}
    return ATTACKS.build(name, **{key: value for key, value in (SMALL | options).items() if key in fields}, **special)
