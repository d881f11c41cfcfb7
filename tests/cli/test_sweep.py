"""sda sweep: cells on the same images, cached by identity, and a config that is checked first."""
import pytest

pytest.importorskip('mmpretrain', reason='the demo models are those of the libraries', exc_type=ImportError)

from sparse_dense_attacks.cli.configs import read_config  # noqa: E402
from sparse_dense_attacks.cli.sweep import Sweep, _parser, main, run  # noqa: E402
from sparse_dense_attacks.engine import packaged_configs  # noqa: E402
from sparse_dense_attacks.engine.attacker import Attacker  # noqa: E402
from sparse_dense_attacks.errors import InputError  # noqa: E402
from tests import forks  # noqa: E402

pytestmark = pytest.mark.openmmlab

STUDIES = sorted((forks.ROOT / 'configs/studies').glob('*.py'))
SMALL = """
base = 'sparse_dense_attacks::spgd_resnet18.py'
options = {{'attack.steps': 2, 'test_dataloader.num_workers': 0,
           'test_dataloader.dataset.data_root': '{data}/'}}
cells = {{'k = 30 %': {{'attack.k': 0.3}}, 'one': {{'attack.k': {k}}}}}
measures = {measures}
findings = [dict(claim='more help', measure='success', more='k = 30 %', less='one')]
"""


def sweep(tmp_path, k=1, measures=(), limit=3):
    config = tmp_path / 'small.py'
    config.write_text(SMALL.format(data=tmp_path / 'data', k=k, measures=list(measures)))
    return run([str(config), '--work-dir', str(tmp_path / 'work'), '--device', 'cpu', '--limit',
                str(limit)])


@pytest.fixture
def attacked(monkeypatch):
    """The ids of the images that are attacked, in their order."""
    keys, perturb = [], Attacker.perturb

    def counted(self, data_batch, region=None):
        found = perturb(self, data_batch, region)
        keys.extend(found.keys)
        return found

    monkeypatch.setattr(Attacker, 'perturb', counted)
    return keys


def test_cells_are_kept_by_what_they_are(tmp_path, attacked, capfd):
    cells = sweep(tmp_path)
    assert [cell.name for cell in cells] == ['k = 30 %', 'one'] and len(attacked) == 6
    assert {one.key for one in cells[0].records} == {one.key for one in cells[1].records}
    assert max(one.l0_pixels for one in cells[1].records) <= 1
    assert 'more help: ' in capfd.readouterr().out
    for ending in ('csv', 'md', 'png'):
        assert (tmp_path / f'work/small.{ending}').stat().st_size > 100
    records = (tmp_path / 'work/cells/one/records.jsonl').read_bytes()

    again = sweep(tmp_path)
    assert len(attacked) == 6 and again[1].records == cells[1].records
    assert (tmp_path / 'work/cells/one/records.jsonl').read_bytes() == records

    measured = sweep(tmp_path, measures=['acp'])
    assert len(attacked) == 6
    assert all(one.measures['acp'] == one.l0_pixels for cell in measured for one in cell.records)

    sweep(tmp_path, k=2)
    assert len(attacked) == 9  # the other cell only
    sweep(tmp_path, k=2, limit=2)
    assert len(attacked) == 9


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_studies_can_be_built(path):
    """Cells and findings fit; each overrides what its base has."""
    from sparse_dense_attacks import ATTACKS
    found = Sweep.read(_parser().parse_args([str(path)]))
    assert found.findings and len(found.cells) >= 3 and found.note and found.limit
    assert f'sda sweep configs/studies/{path.name} --out docs/studies' in path.read_text()
    for overrides in found.cells.values():
        whole = {**found.options, **overrides}
        read_config(whole.get('base', found.base))
        if 'attack' in whole:
            ATTACKS.build(whole['attack'])


@pytest.mark.parametrize(('line', 'said'), [
    ("cels = {}", "nothing reads 'cels'"), ("cells = {}", 'cells = {}, expected a dict'),
    ("cells = {'a/b': {}}", "the name 'a/b' holds '/'"), ("limit = 0", 'limit = 0, expected an int >= 1'),
    ("base = None", "cell 'x' has no base"), ("options = 3", 'options = 3, expected a dict'),
    ("findings = 3", 'findings = 3, expected a list'),
    ("findings = [dict(claim='c')]", 'expected a dict of claim, measure, more, less'),
    ("findings = [dict(claim='c', measure='pixels', more='x', less='y')]", "findings: no cell 'y'"),
    ("cells = {'x': {'atack.k': 3}}", "nothing reads a top-level 'atack'"),
    ("measures = ['iss']", "no measure 'iss'"),
])
def test_what_does_not_fit_is_one_line(tmp_path, line, said, capfd):
    config = tmp_path / 'wrong.py'
    config.write_text("base = 'sparse_dense_attacks::spgd_resnet18.py'\ncells = {'x': {}}\n" + line + '\n')
    assert main([str(config), '--work-dir', str(tmp_path / 'work')]) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith('error: ') and said in error and '\n' not in error


def test_studies_are_packaged():
    folder = packaged_configs.configs_folder('sparse_dense_attacks')
    assert (folder / 'studies/reinit.py').is_file()
    with pytest.raises(InputError, match='no config'):
        read_config('sparse_dense_attacks::studies/none.py')
