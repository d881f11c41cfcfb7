"""Every core waits for the device once per iteration at most, and makes its tensors where its images are.

Counted without a GPU: on a device that is made of the CPU, see tests/far.py.
"""
from dataclasses import replace

import pytest
import torch

from sparse_dense_attacks.objectives.base import Objective
from tests.attacks.test_conformance import every_core
from tests.far import FAR, Far, Watch
from tests.helpers import Net, objective, pictures

GAIN, SHAPE = 0.15, (3, 3, 6, 8)  # of three images some break at once, and some never


class Counted(Objective):
    """Passes an objective through and counts its queries."""

    def __init__(self, inner):
        self.inner, self.clean, self.queries = inner, inner.clean, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, x, rows):
        assert isinstance(x, Far) and not isinstance(rows, Far)
        self.queries += 1
        return self.inner(x, rows)


def far_net(watch, **options):
    net = Net(**options)
    for layer in (net.conv, net.head):
        for name, value in list(layer._parameters.items()):
            del layer._parameters[name]
            setattr(layer, name, watch.put(value.detach()))
    return net


def cost(attack):
    """Queries and reads of an attack, and the images it finds."""
    watch = Watch()
    net, images = far_net(watch, gain=GAIN), watch.put(pictures(*SHAPE, seed=3))
    with watch:
        task = Counted(objective(net, images))
        watch.reads.clear()
        result = attack(task, seed=1)
    assert isinstance(result.images, Far) and result.images.device == FAR
    return task.queries, watch.reads, result


def lengthened(attack):
    """The same with twice the iterations."""
    changed = {name: 2 * value for name in ('steps', 'dense_steps', 'iters', 'queries')
               if isinstance(value := getattr(attack, name, None), int)}
    if hasattr(attack, 'base') and attack.base is not None:
        changed['base'] = lengthened(attack.base)
    return replace(attack, **changed)


@every_core
def test_one_look_per_iteration_and_the_same_result(attack):
    """What an attack does once, before and after its iterations, is in the difference of two lengths no more."""
    queries, reads, result = cost(attack)
    more_queries, more_reads, _ = cost(lengthened(attack))
    expected = attack(objective(Net(gain=GAIN), pictures(*SHAPE, seed=3)), seed=1)
    assert torch.equal(result.images.near, expected.images)
    assert torch.equal(result.success.near, expected.success)
    assert len(more_reads) - len(reads) <= max(more_queries - queries, 0), (queries, more_queries, more_reads)
    assert len(reads) <= queries + 40, 'before and after them'


def test_the_device_counts_and_refuses():
    watch = Watch()
    a = watch.put(torch.arange(6.).view(2, 3))
    with watch:
        b = (a + 1)[torch.tensor([1])] * 2
        assert b.device == FAR and not watch.reads
        assert b.tolist() == [[8, 10, 12]] and len(watch.reads) == 1
        assert bool((a > 4).any()) and float(a.sum()) == 15 and len(watch.reads) == 3
        a[a > 2] = 0
        assert len(a[a > 0]) == 2 and len((a > 0).nonzero()) == 2 and len(watch.reads) == 6
        assert torch.stack([a, a]).cpu().sum() == 6 and len(watch.reads) == 7
        with pytest.raises(AssertionError, match='add mixes tensors'):
            a + torch.ones(2, 3)
        x = torch.zeros(2, device=FAR).requires_grad_()
        gradient, = torch.autograd.grad((x * x.new_tensor([1., 2])).sum(), x)
        watch.reads.clear()
        assert gradient.tolist() == [1, 2] and watch.reads
