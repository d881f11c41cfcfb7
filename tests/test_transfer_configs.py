"""The configs of configs/transfer: models are built, of the zoo with random weights; attacks and goals fit; images are found."""
import os
from pathlib import Path

import pytest

pytest.importorskip('mmdet', reason='the demo has detectors', exc_type=ImportError)
pytest.importorskip('mmpretrain', reason='and a classifier', exc_type=ImportError)

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from sparse_dense_attacks import ATTACKS  # noqa: E402
from sparse_dense_attacks.cli import transfer  # noqa: E402
from sparse_dense_attacks.cli.configs import load_config  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get('SDA_ASSETS', ROOT / 'data'))
CONFIGS = sorted(path.stem for path in (ROOT / 'configs/transfer').glob('*.py') if path.stem != 'demo_models')
SLOW = dict(backbones=pytest.mark.slow) | dict.fromkeys(('cifar_real', 'coco_flat', 'coco_real', 'coco_search'), pytest.mark.real)
IN_A_CHECKOUT = 'cifar', 'coco'  # their models and images are not in the package


def plan_of(name, folder):
    config = str(ROOT / f'configs/transfer/{name}.py')
    args = transfer._parser().parse_args([config, '--work-dir', str(folder), '--device', 'cpu'])
    cfg = load_config(args.config, None, tuple(transfer.OWN))
    if name == 'backbones':
        for model in cfg.models.values():
            model.checkpoint = 'none'
    if name in ('backbones', 'cifar_real'):
        cfg.images = str(folder / 'photos')
        (folder / 'photos').mkdir()
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / 'photos/black.png')
    return transfer.Plan.read(cfg, args)


@pytest.mark.parametrize('name', CONFIGS)
def test_the_header_has_the_command(name):
    header = (ROOT / f'configs/transfer/{name}.py').read_text()
    assert f'\n#     sda transfer {"configs" if name.startswith(IN_A_CHECKOUT) else "sparse_dense_attacks::transfer"}' in header


@pytest.mark.parametrize('name', [pytest.param(name, marks=SLOW.get(name, ())) for name in CONFIGS])
def test_every_source_and_victim_is_built(name, tmp_path, monkeypatch):
    if name.startswith(IN_A_CHECKOUT) and not (ASSETS / 'checkpoints').is_dir():
        pytest.skip(f'no real weights in {ASSETS} (set SDA_ASSETS)')
    monkeypatch.chdir(ROOT)
    plan = plan_of(name, tmp_path)
    for source in plan.sources.values():
        ATTACKS.build(dict(source.get('attack') or plan.attack))
    files = {model: transfer._files(plan, model) for model in plan.used()}
    assert set(plan.victims) <= set(files)
    built, budgets = set(), []
    for source in plan.sources.values():
        budgets.append(source.get('attack', {}).get('budget', source.get('attack', {}).get('k')))
        for entry in map(transfer._member, source.get('members', [source])):
            what = entry['model'], str(entry.get('goal'))
            if what in built:
                continue
            built.add(what)
            if 'module' in plan.models[entry['model']]:
                member, _ = transfer._plain(plan, source, entry, transfer._images(plan, files))
                assert member.attacker.victim.reference == 'prediction'
            else:
                runner = transfer._runner(plan, source, entry, tmp_path / entry['model'])
                assert runner.test_loop.attacker.threat.grid == 'original'
    equal = {str(one) for one in budgets if one is not None}
    assert plan.allow_unequal or len(equal) <= 1
