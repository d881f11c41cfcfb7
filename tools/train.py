"""Train the model of a config: the same as `sda train`."""
import sys

from sparse_dense_attacks.cli.train import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
