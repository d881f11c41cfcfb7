"""Processes that share the work of a command, as torchrun starts them."""
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from tests import forks


def start(programs: Sequence[Sequence], folder: Path, **environment) -> list[tuple[int, str]]:
    """Start a process for each rank and wait for all.

    Args:
        programs: of each rank what comes after ``python``; ``--launcher pytorch`` is added.
        folder: for what they print.
        **environment: variables of single ranks, as ``rank1=dict(...)``.

    Returns:
        The exit status of each and what it printed.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    jobs = []
    for rank, words in enumerate(programs):
        own = os.environ | dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(len(programs)), OMP_NUM_THREADS='1',
                                MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), PYTHONPATH=str(forks.ROOT))
        own |= environment.get(f'rank{rank}', {})
        out = folder / f'rank{rank}.log'
        jobs.append((forks.start([*words, '--launcher', 'pytorch'], out, environment=own), out))
    try:
        until = time.monotonic() + 240
        for job, out in jobs:
            job.join(max(until - time.monotonic(), 0))
            assert job.exitcode is not None, f'it waits for ever: {out.read_text()[-2000:]}'
    finally:
        for job, _ in jobs:
            job.kill()
            job.join()
    return [(job.exitcode, out.read_text()) for job, out in jobs]
