"""The wheel: what it holds, and that it works in an empty folder without a checkout."""
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip('mmdet', reason='the wheel is tried on detectors', exc_type=ImportError)
pytest.importorskip('wheel', reason='wheels are built with it')

from PIL import Image

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NO_WORKERS = ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Built from a copy, without the network: in the checkout the builder leaves a folder that ends up in the next wheel."""
    folder = tmp_path_factory.mktemp('wheel')
    for name in ('configs', 'sparse_dense_attacks'):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml', 'README.md', 'LICENSE', 'constraints.txt', 'constraints-upstream.txt'):
        shutil.copy(ROOT / name, folder)
    pip('wheel', '--no-build-isolation', '--wheel-dir', str(folder / 'built'), str(folder))
    path, = (folder / 'built').glob('*.whl')
    return path


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp('installed')
    pip('install', '--target', str(folder), str(wheel))
    return folder


def pip(command, *arguments):
    done = subprocess.run([sys.executable, '-m', 'pip', command, '--no-deps', '--no-index', '--quiet', *arguments],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run(installed, folder, *argv) -> str:
    """``sda`` of the wheel in a folder; every copy of the package but the installed one is off the path."""
    others = [path for path in os.environ.get('PYTHONPATH', '').split(os.pathsep) if path and Path(path).resolve() != ROOT]
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(installed), *others])}
    done = subprocess.run([sys.executable, str(installed / 'bin/sda'), *argv], capture_output=True, text=True, check=False,
                          cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_contents(wheel):
    """Every file of the package and of configs/ once, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if '.dist-info/' not in name]
    package = {path.relative_to(ROOT).as_posix() for kind in ('py', 'pth', 'html', 'css', 'js')
               for path in (ROOT / 'sparse_dense_attacks').rglob(f'*.{kind}') if '.mim' not in path.parts}
    configs = {f'sparse_dense_attacks/.mim/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').rglob('*.py')}
    pins = {f'sparse_dense_attacks/.mim/{name}' for name in ('constraints.txt', 'constraints-upstream.txt')}
    assert sorted(names) == sorted(package | configs | pins)


def test_the_demo_in_an_empty_folder(installed, tmp_path):
    run(installed, tmp_path, 'attack', 'sparse_dense_attacks::spgd_faster_rcnn.py', '--limit', '4', '--cfg-options',
        'attack.steps=2', *NO_WORKERS)
    run_info = json.loads((tmp_path / 'work_dirs/spgd_faster_rcnn/run.json').read_text())
    assert Path(run_info['checkpoint']).is_relative_to(installed)
    assert len((tmp_path / 'work_dirs/spgd_faster_rcnn/records.jsonl').read_text().splitlines()) == 4
    run(installed, tmp_path, 'report', 'work_dirs/spgd_faster_rcnn')
    assert 'Threat model' in (tmp_path / 'work_dirs/report/report.html').read_text()


def test_a_config_of_the_zoo_on_photos(installed, tmp_path):
    (tmp_path / 'photos').mkdir()
    Image.effect_noise((64, 48), 80).convert('RGB').save(tmp_path / 'photos/a.png')
    run(installed, tmp_path, 'attack', 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', '--checkpoint', 'none', '--images', 'photos',
        '--cfg-options', 'attack.steps=1', *NO_WORKERS)
    record = json.loads((tmp_path / 'work_dirs/yolox_tiny_8xb8-300e_coco/records.jsonl').read_text())
    assert record['key'] == 'photos/a.png' and record['l0_pixels'] > 0


def test_doctor_knows_the_tested_versions(installed, tmp_path):
    code = ("from sparse_dense_attacks.cli.doctor import __file__, pins\nprint(__file__, pins('onedl')['onedl-mmcv'], "
            "pins('upstream')['mmcv'])")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=tmp_path,
                          env=os.environ | {'PYTHONPATH': str(installed)})
    assert done.stdout.startswith(str(installed))
