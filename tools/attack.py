"""Attack the test set of a config, evaluate it before and after.

    python tools/attack.py configs/spgd_faster_rcnn.py
    python tools/attack.py my_config.py --checkpoint my_weights.pth --cfg-options attack.k=500 --limit 32
"""
import sys

from sparse_dense_attacks.cli.attack import attack_from_command_line
from sparse_dense_attacks.cli.common import main

if __name__ == '__main__':
    sys.exit(main(attack_from_command_line))
