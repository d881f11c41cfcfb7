"""Forked programs are like those of a fresh interpreter: nothing of ours or OpenMMLab's is imported, and nothing is inherited."""
import os
import signal

import pytest

from tests import forks

OWN = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'sparse_dense_attacks', 'tests')
LOOK = f'''
import os, sys, torch
print(sorted({{name.partition('.')[0] for name in sys.modules}} & set({OWN})), sys.argv[1:], os.getcwd(), os.environ['WORD'])
print(__name__, sys.modules['__main__'].LOOKED, torch.get_num_threads(), torch.tensor([1e-39]).mul(1)[0].item() == 0)
'''.replace('import os, sys', 'LOOKED = 1\nimport os, sys')


@pytest.fixture
def program(tmp_path):
    (tmp_path / 'look.py').write_text(LOOK)
    return dict(c=['-c', LOOK], m=['-m', 'look'], script=[tmp_path / 'look.py'])


@pytest.mark.parametrize('way', ['c', 'm', 'script'])
@pytest.mark.parametrize('flush', [False, True])
def test_what_a_program_finds(tmp_path, program, way, flush):
    environment = os.environ | dict(PYTHONPATH=str(tmp_path), WORD='set later')
    printed = forks.run([*program[way], 'a', '--b'], tmp_path / 'printed.txt', cwd=tmp_path, environment=environment,
                        flush_denormal=flush)
    assert printed == f"[] ['a', '--b'] {tmp_path} set later\n__main__ 1 1 {flush}\n"


def test_our_package_is_found_by_default_and_only_there(tmp_path):
    forks.run(['-c', 'import sparse_dense_attacks'], tmp_path / 'printed.txt')
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    code = 'import sys; print(*sys.path, sep="\\n")'
    printed = forks.run(['-c', code], tmp_path / 'printed.txt', cwd=tmp_path, environment=environment)
    assert str(forks.ROOT) not in printed.splitlines()


@pytest.mark.parametrize(('code', 'status', 'said'), [
    ('raise SystemExit(3)', 3, ''), ("import sys; sys.exit('sad')", 1, 'sad'), ('1 / 0', 1, 'ZeroDivisionError')])
def test_a_failure_is_seen(tmp_path, code, status, said):
    with pytest.raises(AssertionError, match=f'status {status}: [^$]*{said}'):
        forks.run(['-c', code], tmp_path / 'printed.txt')


def test_it_can_be_killed(tmp_path):
    process = forks.start(['-c', 'import time; time.sleep(60)'], tmp_path / 'printed.txt')
    assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
