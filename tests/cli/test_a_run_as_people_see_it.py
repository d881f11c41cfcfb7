"""One run of the command from its arguments to its last line: odd names, few lines, a full log."""
import json
import os
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain', reason='its classifier is attacked', exc_type=ImportError)

from PIL import Image

from sparse_dense_attacks.cli import main

pytestmark = pytest.mark.openmmlab

CONFIG = str(Path(__file__).parents[2] / 'configs/spgd_resnet18.py')


def test_a_run_on_photos_with_odd_names_in_a_folder_with_an_odd_name(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('[bold]').mkdir()
    for name in (b'[bold]/\xff\xfe.png', b'[bold]/[b]a[b].png', b'[bold]/.hidden.png'):
        with open(name, 'wb') as file:
            Image.effect_noise((32, 32), 80).convert('RGB').save(file, 'PNG')
    Path('[bold]/broken.png').write_text('no image')
    assert main(['attack', CONFIG, '--images', '[bold]', '--work-dir', 'out/[/red]', '--device', 'cpu',
                 '--cfg-options', 'attack.steps=1', 'test_dataloader.num_workers=0',
                 'test_dataloader.persistent_workers=False']) == 0
    printed = capfd.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert len(lines) <= 40 and str(tmp_path) not in printed.out + printed.err
    assert 'photos: 3 images in 1 folders below [bold]; passed over: 1 hidden' in lines
    assert printed.out.splitlines()[-1] == 'results in out/[/red]'
    assert any(line.startswith('attack: 3 of 3 images in ') for line in lines)
    records = map(json.loads, Path('out/[/red]/records.jsonl').read_text().splitlines())
    assert {os.fsencode(one['key']) for one in records} == \
        {b'[bold]/\xff\xfe.png', b'[bold]/[b]a[b].png', b'[bold]/broken.png'}
    log, = Path('out/[/red]').glob('*/*.log')
    assert 'System environment' in log.read_text() and 'Config:' in log.read_text()
