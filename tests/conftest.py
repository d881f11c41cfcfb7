"""What every test file shares."""
import os

# Tiny models: threads cost more than they save, and other workers run beside this one. Commands that tests start inherit it.
os.environ['OMP_NUM_THREADS'] = '1'

import torch  # noqa: E402

torch.set_num_threads(1)
