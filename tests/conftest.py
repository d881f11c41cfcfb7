"""What every test file shares."""
import os

# Tiny models: threads cost more than they save, and other workers run beside this one. Commands that tests start inherit it.
os.environ['OMP_NUM_THREADS'] = '1'

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _numbers_as_torch_has_them():
    """Commands take tiny numbers for zero; the next test of the process must not."""
    yield
    torch.set_flush_denormal(False)
