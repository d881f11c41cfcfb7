"""The scripts that compare attacks: reports of finished runs, and the benchmark's tables."""
import argparse
import ast
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from sparse_dense_attacks import (
    ASLO,
    ATTACKS,
    GSE,
    PGD0,
    BudgetSearch,
    ForeignAttack,
    InputError,
    SigmaZero,
    StructuredSparsePGD,
    UniversalPatch,
    attack,
)
from sparse_dense_attacks.cli import report
from sparse_dense_attacks.results import Record, ResultStore, describe
from tests.helpers import Linear, objective

pytestmark = pytest.mark.openmmlab
TOOLS = Path(__file__).parents[2] / 'tools/analysis_tools'


@pytest.fixture(autouse=True)
def _tools_find_each_other(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)


def tool(name):
    spec = importlib.util.spec_from_file_location(f'tool_{name}', TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / 'run'
    store = ResultStore(folder)
    store.start(dict(identity=dict(attack=describe(SigmaZero()), goal=dict(type='Vanish'))))
    for key, success, right, pixels in (('a', True, True, 5), ('b', False, True, 0), ('c', True, True, 40), ('d', True, False, 0),
                                        ('e', None, False, 0)):
        store.add(Record(key, success, success, right, l0_pixels=pixels))
    store.write_json('metrics.json', {'clean/mAP': 0.5, 'adv/mAP': 0.25, 'attack/images': 5})
    return folder


def test_report_of_a_finished_run(finished, tmp_path, capsys):
    report.run([str(finished), '--out', str(tmp_path / 'out')])
    table = (tmp_path / 'out/report.md').read_text().splitlines()
    assert table[-1] == ('| run | SigmaZero | Vanish | 3 | 0.667 | 22.5 | mAP 0.500 -> 0.250 '
                         '| [0.000, 1.000] | A | finished | - | 0.00 | 0.00 | 0.33 | 0.33 | 0.67 | 0.67 | 0.67 | 0.67 |')
    assert (tmp_path / 'out/curves.png').stat().st_size > 1000 and 'report.md' in capsys.readouterr().out


def test_report_in_groups_takes_pixels_of_runs_without_structure(finished, tmp_path):
    report.run([str(finished), '--unit', 'groups', '--out', str(tmp_path / 'out')])
    pixels = tmp_path / 'pixels'
    report.run([str(finished), '--out', str(pixels)])
    rows = [(folder / 'report.md').read_text().splitlines()[-1] for folder in (tmp_path / 'out', pixels)]
    assert rows[0] == rows[1]


def test_report_keeps_runs_of_one_name_apart(finished, tmp_path, monkeypatch):
    (tmp_path / 'b').mkdir()
    finished.rename(tmp_path / 'b/run')
    shutil.copytree(tmp_path / 'b/run', tmp_path / 'a/run')
    shutil.copytree(tmp_path / 'b/run', tmp_path / 'other')
    drawn = []
    monkeypatch.setattr(report, 'draw_curves', lambda curves, *_: drawn.extend(curves))
    folders = ['a/run', 'b/run', 'other', 'b/../other']
    report.run([*(str(tmp_path / folder) for folder in folders), '--out', str(tmp_path / 'out')])
    rows = [line.split(' | ')[0] for line in (tmp_path / 'out/report.md').read_text().splitlines()[4:]]
    assert drawn == ['a/run', 'b/run', 'other'] and rows == ['| a/run', '| b/run', '| other']


def test_report_passes_over_what_is_no_run(finished, tmp_path, capsys):
    for _ in range(2):  # the second time its own output is there too
        (tmp_path / 'training').mkdir(exist_ok=True)
        report.run([*map(str, sorted(tmp_path.iterdir())), '--out', str(tmp_path / 'report')])
    note = capsys.readouterr().err.splitlines()[-1]
    assert note == f'note: passed over without a run.json: {tmp_path / "report"}, {tmp_path / "training"}'


def test_report_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match='holds no run'):
        report.run([str(tmp_path)])


def test_description_of_nested_attacks_names_every_part():
    search = describe(BudgetSearch(PGD0(k=5)))
    assert search['base']['type'] == 'PGD0' and search['base']['k'] == 5
    assert describe(ForeignAttack(torch.sign, dict(a=GSE())))['options']['a']['type'] == 'GSE'
    assert 'sign' in describe(ForeignAttack(torch.sign))['function']


def columns(success, l0):
    counts = ('l0_elements', 'l0_pixels', 'clusters', 'windows', 'forwards', 'backwards')
    return dict(success=success, success_8bit=success) | dict.fromkeys(counts, l0)


def test_benchmark_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    benchmark, measured = tool('strength'), []

    def measure(one, seed):
        measured.append(one)
        return columns([True, True, False], [3, 9, 2])

    args = argparse.Namespace(only=None, out=tmp_path, command='cifar10', seeds=[0])
    attacks = {'first': PGD0(k=3), 'second': PGD0(k=4)}
    benchmark.compare(attacks, measure, args, dict(limit=0), 'model', 'title')
    benchmark.compare(attacks | {'second': PGD0(k=5)}, measure, args, dict(limit=0), 'model', 'title')
    assert measured == [PGD0(k=3), PGD0(k=4), PGD0(k=5)], 'only what changed is measured again'
    benchmark.compare(attacks, measure, args, dict(limit=1), 'model', 'title')
    assert len(measured) == 5 and set(json.loads((tmp_path / 'cifar10.json').read_text())) == {'first', 'second'}
    assert (tmp_path / 'cifar10.png').stat().st_size > 1000
    args.seeds = [0, 4]
    benchmark.compare({'first': PGD0(k=3)}, measure, args, dict(limit=1), 'model', 'title')
    assert len(measured) == 6, 'one more seed'
    with pytest.raises(InputError, match='no attack is called third: first, second'):
        args.only = ['third']
        benchmark.compare(attacks, measure, args, {}, '', '')


def test_failures_count_as_infinitely_many_in_the_median_and_not_in_the_mean(capsys):
    rows = {'half': [columns([True, False, False], [3, 0, 0])], 'most': [columns([True, True, False], [4, 6, 0])]}
    tool('strength').show(rows, {}, '')
    half, most = (line.split('│')[1:-1] for line in capsys.readouterr().out.splitlines() if 'half' in line or 'most' in line)
    assert [cell.strip() for cell in half[1:5]] == ['0.333', '0.333', 'inf', '3']
    assert [cell.strip() for cell in most[1:5]] == ['0.667', '0.667', '6', '5']


def test_the_envelope_is_the_best_of_all_runs():
    strength, envelope = tool('strength'), {}
    runs = [columns([True, False, True], [7, 1, 5]), columns([True, False, True, True], [4, 2, 8, 9])]
    for run in runs:
        envelope = strength.lowered(envelope, run)
    assert envelope['l0_pixels'] == envelope['l0_elements'] == [4, None, 5, 9]
    assert [strength.gap(run, envelope, 'l0_pixels') for run in runs] == [1.5, 1.0]


def test_intervals_are_over_seeds(capsys):
    """Student's half width of 2 and 4: 12.7 times their standard error, 1."""
    runs = [columns([True], [2]), columns([True], [4])]
    tool('strength').show({'twice': runs}, dict(l0_elements=[2], l0_pixels=[1]), '')
    line = next(line for line in capsys.readouterr().out.splitlines() if 'twice' in line)
    cells = [cell.strip() for cell in line.split('│')[1:-1]]
    assert cells[3:9] == ['3 ±13', '3 ±13', '1 ±13', '3 ±13', '3 ±13', '2 ±13']


def test_the_bare_loop_does_the_passes_of_the_attack():
    """Every image is counted that goes forward without a graph, forward with one, and back; the time lost on repetitions too."""
    watched = tool('stopwatch').Watched(Linear(torch.ones(1, 4, 4), -99.))
    result = attack(watched, torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.long), PGD0(k=2, steps=9),
                    goal='untargeted')
    shown = watched.images
    asked = 2  # whether the model is random
    assert shown['forward'] + shown['look'] == result.queries.sum() + asked
    assert shown['backward'] == result.backwards.sum() == 27 and 0 < watched.sampled['backward'] < 27
    assert watched.lost > 0 and watched.bare() > 0


def test_training_is_compared_with_as_many_plain_iterations(tmp_path, monkeypatch, capsys):
    benchmark, asked = tool('benchmark'), []
    import training_time  # the module that benchmark found beside it

    def seconds(model, iterations, hooks, work_dir):
        asked.append([(hook['loss'], hook['attack']['steps'], hook['attack']['early_stop']) for hook in hooks])
        return {'plain': 0.1, 'sAT': 0.66, 'sTRADES': 0.9}[hooks[0]['loss'] if hooks else 'plain']

    monkeypatch.setattr(training_time, 'training_seconds', seconds)
    argv = ['training', '--steps', '5', '--rounds', '1', '--out', str(tmp_path)]
    assert benchmark.main(benchmark.run, argv) == 0  # as from the command line, where libraries are kept quiet
    assert asked == [[], [('sAT', 5, False)], [('sTRADES', 5, False)]]
    lines = [[cell.strip() for cell in line.split('│')[1:5]] for line in capsys.readouterr().out.splitlines()]
    assert ['plain', '100.0', '1.000', '1.000'] in lines and ['sAT', '660.0', '6.600', '1.100'] in lines
    assert ['sTRADES', '900.0', '9.000', '1.500'] in lines


def test_training_iterations_are_timed(tmp_path, monkeypatch):
    """The clock is read after each of three iterations, of which the first is not counted."""
    training_time, clock = tool('training_time'), iter(range(0, 100, 7))
    monkeypatch.chdir(TOOLS.parents[1])
    monkeypatch.setattr(training_time.stopwatch, 'now', lambda: next(clock))
    hook = dict(type='AdversarialTrainingHook', goal='untargeted', attack=dict(type='RandomPixels', k=1, steps=1))
    assert training_time.training_seconds('resnet18', 2, [hook], tmp_path) == 7 and next(clock) == 21


@pytest.fixture
def robustness(tmp_path, monkeypatch):
    """The tool with runs that only write their files: every attack breaks k per mille, half as much after sTRADES."""
    tool_, runs = tool('robustness'), []

    def prepare(argv):
        runs.append(argv)
        folder, options = Path(argv[argv.index('--work-dir') + 1]), argv[argv.index('--cfg-options') + 1:]
        parts = [option.removeprefix('attack.').split('=') for option in options[1:] if 'pictures' not in option]
        values = {name: value if name in ('type', 'gradient') else ast.literal_eval(value) for name, value in parts}
        broken = min(1, values['k'] / 1000) * (0.5 if 'sTRADES' in argv[4] and values['k'] < 4096 else 1)
        metrics = {'clean/accuracy/top1': 90.0, 'adv/accuracy/top1': 90 * (1 - broken), 'attack/success_rate': broken,
                   'attack/images': int(argv[argv.index('--limit') + 1])}

        def test():
            store = ResultStore(folder)
            store.start(dict(identity=dict(attack=describe(ATTACKS.build(values)), weights='digest')))
            store.write_json('metrics.json', metrics)
            return metrics

        return argparse.Namespace(test=test)

    monkeypatch.setattr(tool_, 'prepare', prepare)
    monkeypatch.setattr(tool_, 'trained', lambda name, training, work_dirs: (Path('weights.pth'), 90.0))
    monkeypatch.setattr(tool_, 'file_digest', lambda path: 'digest')
    return argparse.Namespace(
        runs=runs, page=tmp_path / 'page.md', verdict=tool_.verdict,
        run=lambda *more: tool_.run(['resnet18', '--work-dirs', str(tmp_path), '--out', str(tmp_path / 'page.md'), *more]))


def test_robustness_of_the_demo_models(robustness):
    robustness.run()
    lines = robustness.page.read_text().splitlines()
    assert '| plain | 90.0 | 89.1 | **88.2** | 86.4 | 2 min |' in lines
    assert '| sTRADES | 90.0 | 89.5 | **89.1** | 88.2 | 2 min |' in lines
    assert '| plain | 0.020 | 0.020 | 0.020 | 1.000 | sound |' in lines
    assert robustness.page.with_suffix('.png').stat().st_size > 1000


def test_robustness_goes_on_where_it_was_stopped(robustness):
    robustness.run()
    first = len(robustness.runs)
    robustness.run()
    assert len(robustness.runs) == first
    robustness.run('--queries', '7')
    again = robustness.runs[first:]
    assert len(again) == 12 and not any('--resume' in argv for argv in again)  # Sparse-RS and three budgets of three models
    (Path(again[0][4]) / 'metrics.json').unlink()
    robustness.run('--queries', '7')
    assert len(robustness.runs) == first + 13 and '--resume' in robustness.runs[-1]


@pytest.mark.parametrize(('shares', 'said'), [
    ((0.1, 0.2, 0.25, 1.0), 'sound'), ((0.2, 0.1, 0.1, 1.0), 'more iterations break less'),
    ((0.1, 0.1, 0.2, 1.0), 'Sparse-RS breaks more'), ((0.1, 0.1, 0.1, 0.9), 'every pixel does not break all')])
def test_masked_gradients_are_noticed(robustness, shares, said):
    assert robustness.verdict(*shares) == said


def test_attacks_are_chosen_from_one_table():
    """Only suites.py builds attacks; the others name what they take, and the grid wraps some."""
    wrapped = {'grid.py': {'ASLOAddOn', 'BudgetSearch', 'SparseRS'}}
    for path in TOOLS.glob('*.py'):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        built = {call.id for call in calls if isinstance(call, ast.Name) and call.id in ATTACKS}
        assert path.name == 'suites.py' or built <= wrapped.get(path.name, set()), path


@pytest.mark.real
@pytest.mark.skipif('SDA_ASSETS' not in os.environ, reason='SDA_ASSETS is not set: no CIFAR-10 weights and images')
def test_benchmark_on_real_weights(tmp_path, capsys):
    options = ['--images', '4', '--steps', '20', '--only', 'SigmaZero', 'PGD0 k=10']
    benchmark = tool('benchmark')
    assert benchmark.main(benchmark.run, ['cifar10', *options, '--out', str(tmp_path)]) == 0
    rows = json.loads((tmp_path / 'cifar10.json').read_text())
    assert set(rows) == {'SigmaZero', 'SigmaZero pixel', 'PGD0 k=10'} and rows['SigmaZero']['runs']['0']['forwards'] == [21] * 4
    assert '│ SigmaZero' in capsys.readouterr().out
    assert max(rows['PGD0 k=10']['runs']['0']['l0_pixels']) <= 10 and rows['SigmaZero']['runs']['0']['over_bare'] > 0


@pytest.mark.real
@pytest.mark.skipif('SDA_ASSETS' not in os.environ, reason='SDA_ASSETS is not set: no weights and images')
@pytest.mark.parametrize('model', ['squeezenet', 'deeplabv3'])
def test_budgets_on_real_weights(tmp_path, monkeypatch, capsys, model):
    """Two attacks on one image; a result over the budget counts as the clean image."""
    budgets = tool('budgets')
    monkeypatch.setattr(budgets, 'budget_suite',
                        lambda k, *_, early_stop: dict(PGD0=PGD0(k=k, steps=2, early_stop=False)))
    monkeypatch.setattr(budgets, 'fewest_suite', lambda task, steps: dict(ASLO=ASLO(steps=steps)))
    if model == 'deeplabv3':
        monkeypatch.setattr(budgets, 'load_voc', lambda count: tool('assets').load_voc(count, long_side=129))
    argv = [model, '--images', '1', '--steps', '3', '--shares', '0.0001', '0.1', '--out', str(tmp_path)]
    assert budgets.main(budgets.run, argv) == 0
    rows = json.loads((tmp_path / f'{model}.json').read_text())
    assert set(rows) == {'PGD0 0.0001', 'PGD0 0.1', 'ASLO None'}
    shown = ' '.join(capsys.readouterr().out.split())
    clean = ', '.join(f'{score:.3f}' for score in rows['ASLO None']['after'][0])
    assert f'clean {clean} (' in shown  # three iterations find nothing that sparse
    assert len(rows['ASLO None']['after']) == 2 and '10.0% of the pixels' in shown
    assert rows['PGD0 0.1']['after'] != rows['ASLO None']['after'][:1]


def test_the_grid_has_a_cell_or_a_reason_for_everything():
    grid = tool('grid')
    attacks = grid.suite(2)
    covered = {type(forms['pixels'][0]) for forms in attacks.values() if not isinstance(forms['pixels'], str)}
    ours = {ATTACKS.get(name) for name in ATTACKS if ATTACKS.get(name).__module__.startswith('sparse_dense_attacks')}
    assert covered == ours - {BudgetSearch, ForeignAttack, StructuredSparsePGD, UniversalPatch}
    for name, forms in attacks.items():
        assert set(forms) == set(grid.KERNELS), name
        assert all(form in grid.REASONS if isinstance(form, str) else len(form) == 2 for form in forms.values()), name


def test_cells_of_the_grid():
    """A linear classifier that one pixel breaks: success for both questions, and the least is one pixel."""
    grid = tool('grid')
    task = objective(Linear(torch.ones(1, 4, 4), -0.5), torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.long))
    assert grid.cells((PGD0(k=2, steps=5), BudgetSearch(PGD0(k=2, steps=5))), task, 'pixels') == ('1.00', '1.00 (1)')
    assert grid.cells('a', task, 'rows') == ('a', 'a')
