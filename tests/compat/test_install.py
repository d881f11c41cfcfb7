"""Our operators are installed where mmcv has none of its own, and only there."""
import importlib
import os
import sys
from pathlib import Path
from unittest import mock

import pytest

from sparse_dense_attacks import InputError, compat
from sparse_dense_attacks.cli.common import check_ops
from sparse_dense_attacks.compat import operators
from tests import forks

OURS, THEIRS = 'sparse_dense_attacks.compat.nms', 'mmcv._ext'
COMPILED = 'def nms(*args): ...'  # the text of a module that stands for the compiled one


@pytest.fixture
def mmcv(tmp_path, monkeypatch):
    """Make an mmcv of which only ``_ext`` and ``ops`` matter, and forget the real one for the time of the test."""
    def make(extension=None):
        (tmp_path / 'mmcv/ops').mkdir(parents=True)
        (tmp_path / 'mmcv/__init__.py').write_text('')
        (tmp_path / 'mmcv/ops/__init__.py').write_text('from mmcv._ext import nms')
        if extension is not None:
            (tmp_path / 'mmcv/_ext.py').write_text(extension)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(compat.SWITCH, raising=False)
    with mock.patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.partition('.')[0] == 'mmcv']:
            del sys.modules[name]
        yield make


def in_use() -> tuple[str, str]:
    return compat.in_use(), importlib.import_module('mmcv.ops').nms.__module__


def test_takes_the_place_of_a_module_that_is_not_there(mmcv):
    mmcv()
    compat.install()
    assert 'mmcv' not in sys.modules, 'importing it takes seconds'
    assert in_use() == ('plain', OURS)


def test_leaves_a_compiled_module_alone(mmcv):
    mmcv(COMPILED)
    compat.install()
    assert in_use() == ('compiled', THEIRS)


def test_leaves_a_module_alone_that_was_imported_before(mmcv):
    mmcv(COMPILED)
    before = importlib.import_module('mmcv._ext')
    compat.install()
    assert sys.modules['mmcv._ext'] is before


def test_sets_a_compiled_module_aside_if_told_to(mmcv, monkeypatch):
    mmcv(COMPILED)
    monkeypatch.setenv(compat.SWITCH, '0')
    compat.install()
    assert in_use() == ('plain', OURS)


def test_does_nothing_without_mmcv(mmcv, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv', None)
    compat.install()
    assert compat.compiled_file() is None and 'mmcv._ext' not in sys.modules


def test_a_compiled_module_that_fails_is_named_with_the_way_without_it(mmcv):
    mmcv('raise ImportError("_ext.so: undefined symbol: _ZN3c10")')
    compat.install()
    with pytest.raises(InputError, match=f'undefined symbol: _ZN3c10.*export {compat.SWITCH}=0'):
        check_ops()


def test_runs_programs_that_import_mmcv_first(mmcv, tmp_path):
    mmcv()
    (tmp_path / 'helper.py').write_text('from mmcv.ops import nms')
    program = tmp_path / 'program.py'
    program.write_text('import sys, helper\nif __name__ == "__main__": print(helper.nms.__module__, *sys.argv[1:])')
    path = f'{tmp_path}:{Path(compat.__file__).parents[2]}'
    printed = forks.run(['-m', 'sparse_dense_attacks.compat', program, 'a', '--b'], tmp_path / 'printed.txt',
                        environment=os.environ | {'PYTHONPATH': path})
    assert printed.split() == [OURS, 'a', '--b']


def test_mmcv_believes_that_it_has_operators():
    """mmcv and mmengine ask for the module's spec."""
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
