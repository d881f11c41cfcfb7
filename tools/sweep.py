"""Run an attack with a table of other settings: the same as `sda sweep`."""
import sys

from sparse_dense_attacks.cli.sweep import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
