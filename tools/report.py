"""Put finished runs side by side: the same as `sda report`."""
import sys

from sparse_dense_attacks.cli.report import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
