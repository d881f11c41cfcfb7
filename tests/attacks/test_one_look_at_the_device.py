"""Every core waits for the device once per iteration at most, and makes its tensors where its images are.

Counted without a GPU: on a device that is made of the CPU, see tests/far.py.
"""
from dataclasses import replace

import pytest
import torch

from sparse_dense_attacks.objectives.base import Objective
from tests.attacks.test_conformance import CORES
from tests.far import FAR, Far, Watch
from tests.helpers import Net, objective, pictures

# variants that do the same as another on the way to the device
SAME = {'sigma-zero pixel', 'ASLO pixel', 'ASLO fixed', 'add-on pixel', 'descent pixel', 'descent rows', 'GSE nesterov',
        'WI-FGSM published', 'WI-FGSM one-sided', 'sPGD unprojected', 'columns', 'windows', 'tiles', 'RS ce', 'RS rows',
        'sAA columns'}
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


def cost(attack, sync_every=1):
    """Queries and reads of an attack, and the images it finds."""
    watch = Watch()
    net, images = far_net(watch, gain=GAIN), watch.put(pictures(*SHAPE, seed=3))
    with watch:
        task = Counted(objective(net, images))
        watch.reads.clear()
        result = attack(task, seed=1, sync_every=sync_every)
    assert isinstance(result.images, Far) and result.images.device == FAR
    return task.queries, watch.reads, result


def unending(attack, times=1):
    """The same that goes on after a success where it can, for so many times its iterations."""
    changed = {name: times * value for name in ('steps', 'dense_steps', 'search_steps', 'queries')
               if isinstance(value := getattr(attack, name, None), int)}
    if hasattr(attack, 'early_stop'):
        changed['early_stop'] = False
    if getattr(attack, 'base', None) is not None:
        changed['base'] = unending(attack.base, times)
    return replace(attack, **changed)


@pytest.mark.parametrize('attack', [one for name, one in CORES.items() if name not in SAME],
                         ids=[name for name in CORES if name not in SAME])
def test_one_look_per_iteration_and_the_same_result(attack):
    """What an attack does once, before and after its iterations, is in the difference of two lengths no more."""
    attack = unending(attack)
    queries, reads, result = cost(attack)
    more_queries, more_reads, _ = cost(unending(attack, 2))
    expected = attack(objective(Net(gain=GAIN), pictures(*SHAPE, seed=3)), seed=1)
    assert torch.equal(result.images.near, expected.images)
    assert torch.equal(result.success.near, expected.success)
    # what there is to do once hangs on what was found; after each of its searches GSE compares results
    once = 2 + getattr(attack, 'search_steps', 0)
    assert len(more_reads) - len(reads) <= max(more_queries - queries, 0) + once, (queries, more_queries, more_reads)
    once = 40 + 10 * len(attack.member_names)  # each member begins and ends
    assert len(reads) <= queries + once, 'before and after them'


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
