"""Run another program with these operators in the place of compiled ones that mmcv does not have:

    python -m sparse_dense_attacks.compat tools/test.py my_config.py my_weights.pth

For programs that import ``mmdet.models`` before they read a config with ``custom_imports``, as mmdet's own tools do.
"""
import runpy
import sys
from pathlib import Path

if len(sys.argv) < 2 or sys.argv[1].startswith('-'):
    sys.exit(__doc__)
del sys.argv[0]
sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as Python does for a script
runpy.run_path(sys.argv[0], run_name='__main__')
