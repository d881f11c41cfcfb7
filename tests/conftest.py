"""What every test file shares."""
import torch

torch.set_num_threads(1)  # tiny models: threads cost more than they save, and other jobs run beside the tests
