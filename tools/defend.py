"""Say what defences are worth: the same as `sda defend`."""
import sys

from sparse_dense_attacks.cli.defend import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
