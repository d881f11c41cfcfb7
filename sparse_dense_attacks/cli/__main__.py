"""``python -m sparse_dense_attacks.cli``, where the script ``sda`` is not on the path."""
import sys

from . import main

if __name__ == '__main__':
    sys.exit(main())
