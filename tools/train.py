"""Train a model, for example adversarially, and validate it clean and under attack.

    python tools/train.py configs/training/resnet18_demo_strades.py
    python tools/train.py my_config.py --work-dir work_dirs/mine --resume
"""
import sys

from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.train import train_from_command_line

if __name__ == '__main__':
    sys.exit(main(train_from_command_line, kept='the last checkpoint is safe'))
