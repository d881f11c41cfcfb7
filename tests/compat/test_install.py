"""Our operators are installed where mmcv has none of its own, and only there."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_dense_attacks import InputError, compat
from sparse_dense_attacks.compat import operators

ROOT = Path(compat.__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    """Run code in a process with an mmcv of which only ``_ext`` and ``ops`` matter; ``extension`` is the text of its ``_ext``."""
    pytest.importorskip('mmengine')

    def run(code, extension=None, **environment):
        (tmp_path / 'mmcv/ops').mkdir(parents=True)
        (tmp_path / 'mmcv/__init__.py').write_text('')
        (tmp_path / 'mmcv/ops/__init__.py').write_text('from mmcv._ext import nms')
        if extension is not None:
            (tmp_path / 'mmcv/_ext.py').write_text(extension)
        environment = os.environ | {'PYTHONPATH': f'{tmp_path}:{ROOT}'} | environment
        code = f'import sys, sparse_dense_attacks\nfrom sparse_dense_attacks import compat\n{code}'
        done = subprocess.run([sys.executable, '-c', code], check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


IN_USE = 'print("mmcv" in sys.modules); from mmcv.ops import nms; print(compat.in_use(), nms.__module__)'


def test_takes_the_place_of_a_module_that_is_not_there(run):
    assert run(IN_USE) == ['False', 'plain', 'sparse_dense_attacks.compat.nms']


def test_leaves_a_compiled_module_alone(run):
    assert run(IN_USE, extension='def nms(): ...') == ['False', 'compiled', 'mmcv._ext']


def test_sets_a_compiled_module_aside_if_told_to(run):
    assert run(IN_USE, extension='def nms(): ...', SDA_COMPILED_OPS='0') == ['False', 'plain', 'sparse_dense_attacks.compat.nms']


def test_leaves_a_module_alone_that_was_imported_before(run):
    code = 'before = sys.modules["mmcv._ext"]; compat.install(); assert sys.modules["mmcv._ext"] is before'
    run(code)


def test_a_compiled_module_that_fails_is_named_with_the_way_without_it(run):
    code = """
from sparse_dense_attacks import InputError
from sparse_dense_attacks.engine.launch import check_ops
try:
    check_ops()
except InputError as error:
    assert 'undefined symbol' in str(error) and 'export SDA_COMPILED_OPS=0' in str(error), error
    print('refused')
"""
    assert run(code, extension='raise ImportError("_ext.so: undefined symbol: _ZN3c10")') == ['refused']


def test_mmcv_believes_that_it_has_operators():
    ext_loader = pytest.importorskip('mmcv.utils.ext_loader')
    assert ext_loader.check_ops_exist()


def test_an_operator_that_is_not_there_says_so_when_called():
    with pytest.raises(InputError, match=r"'chamfer_distance_forward' is not in .*; a compiled mmcv has it"):
        operators.chamfer_distance_forward(1, b=2)
    assert not hasattr(operators, '__wrapped__')  # Python's own names are asked for by tools that look around


def test_every_listed_operator_is_there():
    assert all(vars(operators)[name].__module__.startswith('sparse_dense_attacks.compat.') for name in operators.__all__)


def test_compiler_information():
    assert 'sparse_dense_attacks' in operators.get_compiler_version()
    assert operators.get_compiling_cuda_version() == 'not available'
