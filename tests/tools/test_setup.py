"""The set-up files agree with each other, and tools/setup_env.sh refuses what cannot work with one clear line."""
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ['constraints.txt', 'constraints-upstream.txt']
tomllib = pytest.importorskip('tomllib')
python_311 = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason='setup_env.sh wants Python 3.11')


def pins(name):
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith('#')]
    return [line.split('==') for line in lines]


def setup_env(*arguments, **environment):
    """The real script, in a process whose PATH can be emptied of what it looks for."""
    command = [shutil.which('bash'), str(ROOT / 'tools/setup_env.sh'), *arguments]
    environment = os.environ | {'PYTHON': sys.executable} | environment
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize('name', CONSTRAINTS)
def test_every_pin_is_exact_and_unique(name):
    assert all(len(pin) == 2 and re.fullmatch(r'\d[\w.]*', pin[1]) for pin in pins(name)), name
    names = [pin[0] for pin in pins(name)]
    assert names == [re.sub(r'[-_.]+', '-', n).lower() for n in names], 'setup_env.sh looks pins up by normalised name'
    assert len(names) == len(set(names))


@pytest.mark.parametrize('name, extra', [('constraints.txt', 'openmmlab'), ('constraints-upstream.txt', 'upstream')])
def test_constraints_pin_all_that_is_installed(name, extra):
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    wanted = [*project['dependencies'], *extras[extra], *extras['test'], 'uv', 'setuptools', 'wheel', 'ninja']
    pinned = {pin[0] for pin in pins(name)}
    assert {re.match(r'[\w-]+', requirement).group() for requirement in wanted} <= pinned


def test_the_site_is_built_with_pinned_tools():
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
    assert {*extras['docs'], 'mkdocs', 'mkdocstrings'} <= {pin[0] for pin in pins('constraints.txt')}


@pytest.mark.skipif(not Path(sys.prefix, '.ready').exists(), reason='this environment is none of setup_env.sh')
@pytest.mark.parametrize('package', ['torch', 'mmengine', 'mmdet', 'mmseg', 'mmpretrain'])
def test_libraries_are_kept_compiled(package):
    """Else every start compiles them anew where PYTHONDONTWRITEBYTECODE is set, which takes longer than all else in it."""
    assert Path(importlib.util.cache_from_source(importlib.util.find_spec(package).origin)).exists()


def test_openmmlab_is_no_hard_dependency():
    """Installing this package must not replace the mmdet that a user already has."""
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    assert not [name for name in project['dependencies'] if 'mm' in name]


@pytest.mark.parametrize('script', ['tools/setup_env.sh', '.ci/run'])
def test_scripts_parse_and_are_executable(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run([shutil.which('bash'), '-n', str(ROOT / script)], check=True)


def test_unknown_stack(tmp_path):
    done = setup_env('conda', str(tmp_path / 'env'))
    assert done.returncode == 2
    assert "unknown stack 'conda'" in done.stderr
    assert not (tmp_path / 'env').exists()


def test_no_python(tmp_path):
    done = setup_env('onedl', str(tmp_path / 'env'), PYTHON='/nowhere/python')
    assert done.returncode == 2
    assert 'no Python 3.11 found (tried /nowhere/python)' in done.stderr


@python_311
def test_no_compiler(tmp_path):
    """Only the stacks with a compiled mmcv ask for one, and say what does without."""
    done = setup_env('onedl-compiled', str(tmp_path / 'env'), CXX='/nowhere/c++')
    assert done.returncode == 2
    assert 'no C++ compiler (/nowhere/c++) found' in done.stderr and 'make env' in done.stderr
    assert not (tmp_path / 'env/bin').exists(), 'refused only after the work had begun'


@python_311
def test_full_disk(tmp_path):
    (tmp_path / 'df').write_text('#!/bin/sh\necho Filesystem blocks used free\necho disk 9000000 6000000 3000000\n')
    (tmp_path / 'df').chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'
    done = setup_env('onedl', str(tmp_path / 'env'), PATH=path)
    assert done.returncode == 2
    assert 'only 2 GB free' in done.stderr


def test_nothing_is_done_twice(tmp_path):
    """A stamp made for these files ends the script at once; one made for others does not."""
    project = (ROOT / 'pyproject.toml').read_text().partition('[tool.')[0]
    sources = project + ''.join((ROOT / name).read_text() for name in ('constraints.txt', 'tools/setup_env.sh'))
    digest = subprocess.run(['cksum'], check=True, capture_output=True, text=True, input=sources).stdout.strip()
    env = tmp_path / 'env'
    env.mkdir()
    nothing_installed = dict(PYTHON='/nowhere/python')
    (env / '.ready').write_text(f'onedl {ROOT} {digest}\n')
    assert setup_env('onedl', str(env), **nothing_installed).returncode == 0
    (env / '.ready').write_text(f'onedl {ROOT} 0 0\n')
    assert 'no Python 3.11' in setup_env('onedl', str(env), **nothing_installed).stderr
