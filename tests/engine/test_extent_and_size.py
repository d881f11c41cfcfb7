"""Runs on pipelines and photos of odd sizes: all of the content may change, and a tiny photo stops nothing."""
import json
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip('mmseg', reason='the runs attack an mmseg segmenter', exc_type=ImportError)

from sparse_dense_attacks.cli.attack import attack_from_command_line  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/spgd_semantic_fpn.py'


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(config, work_dir, *options, extra=()):
    attack_from_command_line([str(config), '--work-dir', str(work_dir), '--device', 'cpu', *extra,
                              '--cfg-options', 'attack.steps=2', 'attack.early_stop=False',
                              'pictures=0', 'test_dataloader.num_workers=0', *options])
    return [json.loads(line) for line in (work_dir / 'records.jsonl').read_text().splitlines()]


@pytest.mark.parametrize(('step', 'allowed'), [
    ("dict(type='ResizeToMultiple', size_divisor=32)", 12288),
    ("dict(type='Pad', size=(128, 96))", 8000)])
def test_all_of_the_content_may_change_and_no_more(tmp_path, step, allowed):
    """160 x 128 photos become 100 x 80 and then 128 x 96 pixels, by a resize or by padding."""
    config = tmp_path / 'config.py'
    config.write_text(f"""
_base_ = {str(CONFIG)!r}
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(100, 80), keep_ratio=True),
    {step}, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
""")
    for record in run(config, tmp_path / 'run', 'attack.k=12288', extra=('--limit', '2')):
        assert 0.9 * allowed < record['l0_pixels'] <= allowed
        assert (record['note'] == '') == (allowed == 12288)


def test_a_photo_of_one_pixel_stops_nothing(tmp_path):
    """It is recorded as too small for the budget, and again on --resume."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    Image.new('RGB', (1, 1), 'red').save(folder / 'a.png')
    for index, path in enumerate(sorted((ROOT / 'data/demo_scenes/val').glob('*.png'))[:2]):
        (folder / f'b{index}.png').write_bytes(path.read_bytes())
    extra = ('--images', str(folder))
    options = ('attack.k=300', 'test_dataloader.batch_size=1')  # mmseg takes one size at a time
    records = run(CONFIG, tmp_path / 'run', *options, extra=extra)
    assert run(CONFIG, tmp_path / 'run', *options, extra=(*extra, '--resume')) == records
    assert [record['note'] for record in records] == ['too small for the budget', '', '']
    assert records[0]['l0_pixels'] <= 1 and records[1]['l0_pixels'] > 200
    metrics = json.loads((tmp_path / 'run/metrics.json').read_text())
    assert metrics['attack/images_failed'] == []
    assert metrics['attack/images_too_small'] == ['photos/a.png']
