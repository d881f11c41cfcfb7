"""Our operators beside the compiled ones, called by mmcv's own functions."""
import importlib

import pytest

from sparse_dense_attacks import compat
from sparse_dense_attacks.compat import operators


@pytest.fixture
def mmcv_file(monkeypatch):
    """A file of ``mmcv.ops`` by its name, with our operators (or other ones) behind its functions."""
    def load(name, extension=operators):
        module = pytest.importorskip(f'mmcv.ops.{name}')
        monkeypatch.setattr(module, 'ext_module', extension)
        return module

    return load


@pytest.fixture
def compare(mmcv_file):
    """What a function of a file of ``mmcv.ops`` returns with our operators, and with the compiled ones."""
    pytest.importorskip('mmcv')
    if not compat.compiled_file() or compat.in_use() == 'plain':
        pytest.skip('this mmcv has no compiled operators to compare with: make test-compiled')

    def run(name, function):
        compiled = importlib.import_module('mmcv._ext')
        return function(mmcv_file(name)), function(mmcv_file(name, compiled))

    return run
