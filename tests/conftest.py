"""What every test file shares."""
import os

# Tiny models: threads cost more than they save, and other workers run beside this one. Commands that tests start inherit it.
os.environ['OMP_NUM_THREADS'] = '1'

import sys  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

import sparse_dense_attacks  # noqa: E402, F401  (before mmcv.ops, whichever test file comes first)

torch.set_num_threads(1)


def pytest_configure(config):
    """The suite asks for results to the last bit, which are those of the CPU; workers inherit what is hidden here."""
    if 'gpu' not in config.option.markexpr:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''


@pytest.fixture(autouse=True)
def _no_test_leaves_globals_behind():
    """Commands take tiny numbers for zero, and a runner makes its library the place where types are looked up."""
    yield
    torch.set_flush_denormal(False)
    if 'mmengine' in sys.modules:
        from mmengine.registry import DefaultScope
        DefaultScope._instance_dict.clear()
