"""What is printed: plain text whatever is in it, nothing of the libraries, progress without a terminal."""
import io
import logging
import subprocess
import sys
import warnings

import pytest
from rich.table import Table

from sparse_dense_attacks import screen
from sparse_dense_attacks.cli import common, report
from sparse_dense_attacks.errors import InputError
from sparse_dense_attacks.results import Record, ResultStore

NAMES = ['out/[/red]', '[bold]x[/bold]', '[link=file:x]y', ':smile: [0]', 'a\\[b]', '图 é']


@pytest.mark.parametrize('name', NAMES)
def test_names_are_never_taken_for_markup(name, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '200')
    table = Table('run')
    screen.add_row(table, name)
    screen.show(table)
    screen.show(f'results in {name}')
    screen.say(f'warning: {name}')
    printed = capsys.readouterr()
    assert f'│ {name} │' in printed.out.replace('  ', '') or f'│ {name} ' in printed.out
    assert f'results in {name}\n' in printed.out and printed.err == f'warning: {name}\n'


@pytest.mark.parametrize('name', NAMES)
def test_errors_of_commands_are_plain_text(name, capsys):
    def fail(argv):
        raise InputError(f'no folder {name}')
    assert common.main(fail, []) == 2
    assert capsys.readouterr().err == f'error: no folder {name}\n'


@pytest.mark.parametrize(('encoding', 'printed'), [('utf-8', r'\udcff\udcfe.jpg é'),
                                                   ('ascii', r'\udcff\udcfe.jpg \xe9')])
def test_names_that_a_terminal_cannot_show_are_escaped(encoding, printed):
    assert screen.printable('\udcff\udcfe.jpg é', encoding) == printed


@pytest.mark.parametrize('name', ['[red]', '[bold]x[bold]', 'a_run_with_a_name_longer_than_any_column' * 2])
def test_a_report_shows_names_in_full_at_80_columns(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    for folder in (name, 'other'):
        store = ResultStore(tmp_path / folder)
        store.start(dict(identity=dict(attack=dict(type='SparsePGD'), goal=dict(type='Vanish'))))
        store.add(Record('a', True, True, True, l0_pixels=3))
        store.write_json('metrics.json', {'clean/mAP': 0.5, 'adv/mAP': 0.25})
        store.close()
    report.run([str(tmp_path / name), str(tmp_path / 'other'), '--out', str(tmp_path / 'out')])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('│')]
    assert max(map(len, lines)) <= 80 and not any('…' in line for line in lines)
    assert name in ''.join(line.split('│')[1].strip() for line in lines)


# Quiet

def noisy(argv):
    print('creating index...')
    warnings.warn('a deprecated thing', DeprecationWarning, stacklevel=1)
    logger = logging.Logger('of a run', logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stdout))
    kept = io.StringIO()
    logger.addHandler(logging.StreamHandler(kept))
    screen.attach(logger)
    logger.info('config dump')
    logger.warning('unexpected key')
    logger.error('out of memory')
    print('index created!')
    screen.show('results in x')
    noisy.kept = kept.getvalue()


def test_what_libraries_print_is_in_the_log_only(capfd):
    assert common.main(noisy, []) == 0
    printed = capfd.readouterr()
    assert printed.out == 'results in x\n' and printed.err == 'error: out of memory\n'
    assert noisy.kept.splitlines() == ['config dump', 'unexpected key', 'out of memory', 'index created!']


@pytest.mark.parametrize('flag', ['-v', '--verbose'])
def test_verbose_prints_all(flag, capfd):
    with pytest.warns(DeprecationWarning):
        assert common.main(noisy, [flag]) == 0
    assert capfd.readouterr().out.splitlines() == ['creating index...', 'config dump', 'unexpected key',
                                                   'out of memory', 'index created!', 'results in x']


def test_our_own_warnings_are_printed(capfd):
    code = compile("import warnings\nwarnings.warn('a budget is too large')", screen.__file__, 'exec')
    assert common.main(lambda argv: exec(code, {'__name__': 'x'}), []) == 0
    assert capfd.readouterr().err == 'warning: a budget is too large\n'


# Progress

def test_progress_without_a_terminal_is_a_line_a_minute(capsys):
    now = [0.0]
    lines = screen._Lines(600, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 5.0
        lines.advance(4)
    lines.finish()
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == 'attack: 4 of 600 images in 5 s, about 12 min 25 s left'
    assert printed[1] == 'attack: 52 of 600 images in 1 min 5 s, about 11 min 25 s left'
    assert len(printed) == 10 and printed[-1] == 'attack: 400 of 600 images in 8 min 20 s, about 4 min 10 s left'


def test_progress_of_a_single_batch_is_one_line(capsys):
    with screen.progress(3) as advance:
        advance(3)
    assert capsys.readouterr().err == 'attack: 3 of 3 images in 0 s\n'


# Shared processors

@pytest.mark.parametrize(('given', 'expected'), [
    ({}, '10000'), ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'None'), ({'GOMP_SPINCOUNT': '9'}, '9')])
def test_commands_let_waiting_threads_sleep_unless_the_user_chose(given, expected):
    code = ('import os, sys\nfrom sparse_dense_attacks.cli import common\n'
            "common.main(lambda argv: None, [])\nassert 'torch' not in sys.modules\n"
            "print(os.environ.get('GOMP_SPINCOUNT'))")
    path = {name: value for name, value in common.os.environ.items()
            if name not in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                          env=path | given)
    assert done.stdout == f'{expected}\n'
