"""Check an adversarial data set: the same as `sda verify`."""
import sys

from sparse_dense_attacks.cli.verify import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
