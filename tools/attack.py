"""Attack the test set of a config: the same as `sda attack`."""
import sys

from sparse_dense_attacks.cli.attack import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
