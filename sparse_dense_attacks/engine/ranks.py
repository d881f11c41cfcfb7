"""Several processes that share the images of one run.

An attack that stops early takes longer over some batches than over others, so nobody gets a fixed
share: who is idle takes the next batch that nobody has taken. The batches are those of one process.
"""
import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from unittest import mock

import torch.distributed as dist
from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size
from mmengine.registry import DATA_SAMPLERS
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.utils.data import BatchSampler, Sampler

from ..errors import InputError

__all__ = ['ClaimedBatches', 'Ranks', 'alone', 'shared_out', 'store_for']

Value = TypeVar('Value')
_NUMBERS = itertools.count()  # of what processes share, which all of them make in the same order


def store_for(name: str) -> Store:
    """What all processes see under a name; the store of the process group."""
    # torch's own modules ask for it by this name; the public way makes a second server
    return PrefixStore(f'sda/{name}', dist.distributed_c10d._get_default_store())


@DATA_SAMPLERS.register_module()
class ClaimedBatches(Sampler):
    """The batches of one process among several: always the next one that nobody has taken.

    Args:
        sampler: mmengine's for the whole data set, in its order.
        batch_size: images of a batch.
        drop_last: leave out a last batch that is smaller.

    Raises:
        InputError: another sampler, or one that shuffles.
    """

    def __init__(self, sampler, batch_size: int, drop_last: bool = False):
        if type(sampler).__name__ != 'DefaultSampler' or sampler.shuffle:
            raise InputError('processes that share a run take its images in the order of the data '
                             "set: set test_dataloader.sampler = dict(type='DefaultSampler', "
                             'shuffle=False)')
        images = range(len(sampler.dataset))
        self.batches = list(BatchSampler(images, batch_size, drop_last))
        self.number, self.passes = next(_NUMBERS), 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        store = store_for(f'batches/{self.number}/{self.passes}')
        self.passes += 1
        while (claimed := store.add('claimed', 1) - 1) < len(self.batches):
            yield self.batches[claimed]


def shared_out(dataloader: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a dataloader of which each process takes batches as it needs them.

    Raises:
        InputError: it is none, or has a sampler of batches of its own.
    """
    if not isinstance(dataloader, Mapping) or dataloader.get('batch_sampler') is not None:
        raise InputError('processes that share a run need the config of a test_dataloader without '
                         'batch_sampler; or leave --launcher out')
    batches = dict(type='ClaimedBatches', drop_last=dataloader.get('drop_last', False))
    # workers would claim batches long before they are attacked
    given = dict(dataloader, batch_sampler=batches, num_workers=0, persistent_workers=False)
    for option in ('drop_last', 'prefetch_factor', 'timeout'):
        given.pop(option, None)
    return given


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within it mmengine takes this process for the only one, so that it may do what others do not."""
    with mock.patch.object(dist, 'is_initialized', lambda: False):
        yield


class Ranks:
    """The processes of a run, one where nobody has made a process group.

    Attributes:
        count: how many there are.
        rank: which of them this one is.
    """

    def __init__(self) -> None:
        self.count, self.rank = get_world_size(), get_rank()
        self._number, self._seen = next(_NUMBERS), 0

    @property
    def several(self) -> bool:
        return self.count > 1

    def agree(self, what: str, digest: str) -> None:
        """Refuse processes that see different things.

        Raises:
            InputError: their digests differ; the same line on each of them.
        """
        digests = all_gather_object(digest)
        if others := [rank for rank, one in enumerate(digests) if one != digests[0]]:
            raise InputError(f'the processes of this run see different {what}: those of rank '
                             f'{others[0]} are not those of rank 0; give all of them the same '
                             'config, weights and files')

    def claimed(self, entries: Sequence[Value]) -> Iterator[Value]:
        """Those that no other process has taken, one after the other; in the end each had one."""
        for number, entry in enumerate(entries):
            if not self.several or store_for(f'entries/{self._number}').add(str(number), 1) == 1:
                yield entry

    def finished(self, images: int) -> int:
        """How many images were finished, by anybody, since the last call; ``images`` by this one."""
        if not self.several:
            return images
        before, self._seen = self._seen, store_for(f'images/{self._number}').add('done', images)
        return self._seen - before

    def wait(self) -> None:
        """Until all are here."""
        barrier()

    def told(self, value: Value) -> Value:
        """What rank 0 has, on all of them."""
        found = [value]
        if self.several:
            dist.broadcast_object_list(found)
        return found[0]

    def first_does(self, action: Callable[[], None]) -> None:
        """Let rank 0 do something for all, while the others wait.

        Raises:
            InputError: what it raises there, on all of them.
        """
        if not self.several:
            action()
            return
        refusal = None
        if self.rank == 0:
            try:
                action()
            except InputError as error:
                refusal = str(error)
        refusal = self.told(refusal)
        if refusal is not None:
            raise InputError(refusal)

    def gathered(self, value: Value) -> list[Value]:
        """What each of them has, in their order, on rank 0; nothing on the others."""
        found: list[Any] = [None] * self.count if self.rank == 0 else []
        if not self.several:
            return [value]
        dist.gather_object(value, found if self.rank == 0 else None)
        return found
