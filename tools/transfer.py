"""Show what breaks one model to others: the same as `sda transfer`."""
import sys

from sparse_dense_attacks.cli.transfer import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
