"""The command itself: its help, what it does in a broken environment, and that importing the package registers our hooks."""
import ast
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import sparse_dense_attacks
from sparse_dense_attacks import cli
from tests import forks

ROOT = Path(__file__).resolve().parents[2]
ABSENT = 'import sys; sys.modules.update(dict.fromkeys({names!r}))\n'  # what Python does for what cannot be imported
REGISTERED = "from mmengine.registry import HOOKS, LOOPS\nassert HOOKS.get('AttackHook') and LOOPS.get('AttackLoop')\n"


def python(code: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=ROOT,
                          env=os.environ | environment)


def sda(*argv, absent=()) -> subprocess.CompletedProcess:
    """The command in a process of its own where some packages are missing; doctor starts no others."""
    return python(ABSENT.format(names=absent) + 'from sparse_dense_attacks.cli import doctor, main\n'
                  f"doctor.run_python = lambda code: ('', 'plain')\nsys.exit(main({list(argv)!r}))")


# The command

@pytest.mark.parametrize('argv', [[], ['--help'], ['-h']])
def test_help_names_every_command(argv, capsys):
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out
    assert all(f'  {name} ' in printed and text in printed for name, text in cli.COMMANDS.items())


def test_every_file_of_a_command_is_listed():
    """A subcommand is a file with a function main; the others are what they share."""
    files = [path for path in Path(cli.__path__[0]).glob('[!_]*.py') if path.stem != 'common']
    defined = {path.stem for path in files for node in ast.parse(path.read_text()).body
               if isinstance(node, ast.FunctionDef) and node.name == 'main'}
    assert defined == set(cli.COMMANDS)


def test_version(capsys):
    assert cli.main(['--version']) == 0
    first, python_line, *others = capsys.readouterr().out.splitlines()
    assert first == f'sda {sparse_dense_attacks.__version__}'
    assert python_line.startswith(f'Python {platform.python_version()}, ') and python_line.endswith(' cores')
    assert f'torch {metadata.version("torch")}' in others and 'CUDA' in others[-1]


def test_version_says_why_it_knows_no_more(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert cli.main(['--version']) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith('ModuleNotFoundError: import of torch')


def test_the_version_is_that_of_the_distribution():
    assert f'version = "{sparse_dense_attacks.__version__}"\n' in (ROOT / 'pyproject.toml').read_text()


@pytest.mark.parametrize(('name', 'hint'), [('atack', "did you mean 'attack'?"),
                                            ('zzz', 'valid: attack, defend, doctor, fit, report, sweep, train, transfer, '
                                                     'verify')])
def test_an_unknown_command_is_one_line(name, hint, capsys):
    assert cli.main([name]) == 2
    assert capsys.readouterr().err == f"error: sda has no command '{name}': {hint}\n"


@pytest.mark.parametrize('argv', [['--help'], ['attack', '--help'], ['train', '--help'], ['transfer', '--help'],
                                  ['doctor', '--help']])
def test_help_imports_nothing_that_takes_seconds(argv):
    code = ('import atexit, sys\n'
            "atexit.register(lambda: print([name for name in ('torch', 'mmengine', 'numpy') if name in sys.modules]))\n"
            f'from sparse_dense_attacks.cli import main\nsys.exit(main({argv!r}))')
    done = python(code)
    assert done.returncode == 0 and done.stdout.endswith('[]\n'), done.stderr


@pytest.mark.parametrize('name', sorted(cli.COMMANDS))
def test_the_scripts_in_tools_are_the_same(name):
    done = subprocess.run([sys.executable, str(ROOT / f'tools/{name}.py'), '--help'], capture_output=True, text=True, check=False,
                          env=os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])})
    assert done.returncode == 0 and done.stdout.startswith(f'usage: sda {name} ')


def test_a_missing_package_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmengine.runner', None)
    monkeypatch.delitem(sys.modules, 'sparse_dense_attacks.cli.configs', raising=False)  # which needs it
    assert cli.main(['attack', 'a.py']) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.endswith('; sda doctor says what repairs it\n') and error.count('\n') == 1


# A broken environment

@pytest.mark.parametrize('absent', [('torch', 'torchvision'), ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'), ('mmcv',)])
def test_doctor_runs_where_packages_are_broken(absent):
    done = sda('doctor', absent=absent)
    assert not done.stderr and ('all good' in done.stdout or 'need fixing' in done.stdout)


def test_doctor_runs_on_a_torch_that_raises_when_it_is_imported(tmp_path):
    (tmp_path / 'torch.py').write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get('PYTHONPATH', '')])
    done = python("from sparse_dense_attacks.cli import main; main(['doctor'])", PYTHONPATH=path)
    assert 'libtorch_cpu.so' in done.stdout and 'checks need fixing' in done.stdout, done.stderr


# Imports

def test_importing_the_package_imports_nothing_else():
    done = python("import sys, sparse_dense_attacks\nassert not {'torch', 'numpy', 'mmengine'} & sys.modules.keys()")
    assert done.returncode == 0, done.stderr


@pytest.mark.openmmlab
@pytest.mark.parametrize('code', [
    'import sparse_dense_attacks\nimport mmengine\n',
    'import mmengine\nimport sparse_dense_attacks\n',
    'from sparse_dense_attacks import attack\n',
    "import sparse_dense_attacks\nimport importlib.util\nassert importlib.util.find_spec('mmengine')\nimport mmengine.registry\n",
    "from mmengine.config import Config\nConfig.fromfile('configs/imagenet/spgd_resnet50_imagenet.py')\n",
], ids=['before mmengine', 'after mmengine', 'a public name', 'after a mere look', 'from a config'])
def test_hooks_are_registered_in_every_order_of_imports(tmp_path, code):
    pytest.importorskip('mmengine')
    forks.run(['-c', code + REGISTERED], tmp_path / 'printed.txt')


def test_public_names_are_those_listed():
    namespace = {}
    exec('from sparse_dense_attacks import *', namespace)
    names = sparse_dense_attacks.__all__
    assert set(names) <= namespace.keys() and set(names) <= set(dir(sparse_dense_attacks))
    with pytest.raises(AttributeError, match="no attribute 'Vannish'"):
        _ = sparse_dense_attacks.Vannish
    with pytest.raises(ImportError):
        exec('from sparse_dense_attacks import Vannish', {})


def test_rooms_are_attributes(tmp_path):
    forks.run(['-c', 'import sparse_dense_attacks as ours\nassert ours.victims.wrap and ours.attacks.Attack'],
              tmp_path / 'printed.txt')
