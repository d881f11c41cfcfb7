"""Is this environment sound: the same as `sda doctor`, also where the package is not installed."""
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from sparse_dense_attacks.cli.doctor import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
