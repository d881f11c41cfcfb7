"""Learn a patch on many images: the same as `sda fit`."""
import sys

from sparse_dense_attacks.cli.fit import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
