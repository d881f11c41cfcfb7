"""Joins the processes that torchrun or slurm have started for one run."""
import hashlib
import os
import subprocess
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from .. import screen
from ..errors import InputError

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ['is_lost', 'join', 'leave']

# Processes start at about the same time, but finish when they have finished. That one of them has
# ended is noticed at once by the connection that breaks, not by waiting.
_START, _WORK = timedelta(minutes=10), timedelta(days=30)
_SET_BY_TORCHRUN = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')


def join(launcher: str, device: str | None) -> None:
    """Make the process group of a launcher, with gloo: results are small and lie on the CPU.

    mmengine would make it later, but only on a GPU. Each process gets one GPU, if there are any.

    Args:
        launcher: 'none', 'pytorch' (torchrun) or 'slurm'.
        device: 'cpu' to leave GPUs alone.

    Raises:
        InputError: the command was not started by the launcher, or not all processes come.
    """
    import torch
    import torch.distributed as dist

    if launcher == 'none' or dist.is_initialized():
        return
    if launcher == 'slurm':
        _from_slurm()
    missing = [name for name in _SET_BY_TORCHRUN if name not in os.environ]
    if missing:
        raise InputError(f'--launcher {launcher}: {missing[0]} is not set: start with torchrun '
                         '--nproc-per-node 2 -m sparse_dense_attacks.cli attack CONFIG --launcher '
                         'pytorch')
    if device != 'cpu' and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    try:
        store, rank, count = next(iter(dist.rendezvous('env://', timeout=_START)))
        dist.init_process_group('gloo', store=store, rank=rank, world_size=count, timeout=_WORK)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise InputError(f"--launcher {launcher}: rank {os.environ['RANK']} of "
                         f"{os.environ['WORLD_SIZE']} finds no others at {place} "
                         f'({str(error).splitlines()[0]})') from error
    screen.share(partial(_is_first_to_say, dist.PrefixStore('sda/said', store)))


def _is_first_to_say(store: 'Store', line: str) -> bool:
    digest = hashlib.sha256(line.encode(errors='surrogateescape')).hexdigest()
    try:
        return store.add(digest, 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        return True


def leave() -> None:
    """Take down the process group that :func:`join` has made, if it has."""
    if screen.shared():
        import torch.distributed as dist
        screen.share(None)
        dist.destroy_process_group()


def is_lost(error: RuntimeError) -> bool:
    """Whether an error says that another process of the run has ended."""
    return screen.shared() and (type(error).__name__.startswith('Dist') or 'gloo' in str(error))


def _from_slurm() -> None:
    """Set what torchrun would set from what slurm sets for each task."""
    given = {name: os.environ.get(f'SLURM_{name}') for name in ('PROCID', 'NTASKS', 'LOCALID',
                                                                'NODELIST')}
    for name, value in given.items():
        if value is None:
            raise InputError(f'--launcher slurm: SLURM_{name} is not set: start with srun '
                             '--ntasks 2 sda attack CONFIG --launcher slurm')
    os.environ.update(RANK=str(given['PROCID']), WORLD_SIZE=str(given['NTASKS']),
                      LOCAL_RANK=str(given['LOCALID']))
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host(str(given['NODELIST']))


def _first_host(nodes: str) -> str:
    """The first host of slurm's list, which only slurm can read (``node[01-04]``)."""
    command = ['scontrol', 'show', 'hostnames', nodes]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f'--launcher slurm: {" ".join(command)} fails ({error}); set MASTER_ADDR '
                         'to the first host') from error
    return said.split()[0]
