"""Examples in docstrings do what they say."""
import doctest
import importlib
from pathlib import Path

import pytest

import sparse_dense_attacks

PACKAGE = Path(sparse_dense_attacks.__file__).parent
SHOWN = ('sparse_dense_attacks.api', 'sparse_dense_attacks.registry', 'sparse_dense_attacks.testing')  # at least these


def modules() -> list[str]:
    """Modules with an example."""
    found = [path.relative_to(PACKAGE.parent).with_suffix('') for path in sorted(PACKAGE.rglob('*.py'))
             if '>>>' in path.read_text()]
    return ['.'.join(path.parts).removesuffix('.__init__') for path in found]


def test_there_are_examples():
    assert set(SHOWN) <= set(modules())


@pytest.mark.parametrize('name', modules())
def test_examples(name):
    module = importlib.import_module(name)
    runner, said = doctest.DocTestRunner(), []
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(example, out=said.append)
    assert runner.tries, f'{name} has examples that doctest does not find'
    assert not runner.failures, ''.join(said)
