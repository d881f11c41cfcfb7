"""Configs that name classes, fail to import, end Python or go round in circles; photos; names."""
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet', reason='configs of the zoos are read', exc_type=ImportError)

from PIL import Image

from sparse_dense_attacks import ATTACKS, InputError, SparsePGD
from sparse_dense_attacks.attacks import Attack
from sparse_dense_attacks.cli.attack import _attack_and_goal, arguments
from sparse_dense_attacks.cli.configs import read_config
from sparse_dense_attacks.engine.photos import find_photos

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]


# Classes as types

@pytest.mark.parametrize('kind', [SparsePGD, 'SparsePGD', 'sparse_pgd', 'sparse_dense_attacks.SparsePGD',
                                  'sparse_dense_attacks.attacks.SparsePGD',
                                  'sparse_dense_attacks.attacks.sparse_pgd.SparsePGD'])
def test_a_type_may_be_a_class_or_a_dotted_name(kind):
    assert ATTACKS.build(dict(type=kind, k=50)) == SparsePGD(k=50)


@pytest.mark.parametrize(('kind', 'message'), [
    ('sparse_dense_attacks.SparsPGD', "unknown attack 'sparse_dense_attacks.SparsPGD': .*did you mean 'SparsePGD'"),
    ('no_such_package.SparsePGD', "No module named 'no_such_package'.*did you mean 'SparsePGD'"),
    ('sparse_dense_attacks.Vanish', 'Vanish is no registered attack'),
    (Attack, r'sparse_dense_attacks.attacks.base.Attack is no registered attack: '),
    (int, 'builtins.int is no registered attack'),
])
def test_other_classes_are_refused(kind, message):
    with pytest.raises(InputError, match=message):
        ATTACKS.build(dict(type=kind))


def chosen(*argv):
    args = arguments(list(map(str, argv)))
    return _attack_and_goal(read_config(args.config), args)


def test_a_config_in_pure_python(tmp_path):
    """The classes come through mmengine as dotted names; a NAME on the command line finds them."""
    (tmp_path / 'part.py').write_text('from sparse_dense_attacks import Vanish\n'
                                      'goal = dict(type=Vanish, score_thr=0.4)\n')
    (tmp_path / 'mine.py').write_text(
        'from mmengine.config import read_base\nfrom sparse_dense_attacks import SparsePGD\n'
        'with read_base():\n    from .part import *\n'
        "default_scope = 'mmdet'\nattack = dict(type=SparsePGD, k=50)\n")
    attack, goal = chosen(tmp_path / 'mine.py', '--cfg-options', 'attack.steps=7')
    assert (attack, goal.score_thr) == (SparsePGD(k=50, steps=7), 0.4)
    assert chosen(tmp_path / 'mine.py', '--attack', 'sparse_pgd', '--goal', 'vanish') == \
        (SparsePGD(k=50), goal)


# Configs that cannot be read

@pytest.mark.parametrize(('text', 'message'), [
    ('import sys\nsys.exit(0)\n', 'SystemExit'),
    ('raise KeyboardInterrupt2\n', 'NameError'),
    ("custom_imports = dict(imports=['imports_what_is_missing'])\n",
     "cause: ModuleNotFoundError: No module named 'a_missing_package'"),
    ("_base_ = 'mine.py'\n", 'its _base_ is circular: mine.py -> mine.py'),
    ("_base_ = ['other.py']\n", 'its _base_ is circular: mine.py -> other.py -> mine.py'),
])
def test_a_config_that_cannot_be_read_is_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'imports_what_is_missing.py').write_text('import a_missing_package\n')
    (tmp_path / 'other.py').write_text("_base_ = './mine.py'\n")
    (tmp_path / 'mine.py').write_text(text)
    try:
        with pytest.raises(InputError, match=message) as error:
            read_config(str(tmp_path / 'mine.py'))
    finally:
        sys.modules.pop('imports_what_is_missing', None)
    assert '\n' not in str(error.value)


def test_a_base_that_two_configs_share_is_no_circle(tmp_path):
    for name, bases in dict(a=[], b=['a.py'], c=[], mine=['b.py', 'c.py']).items():
        (tmp_path / f'{name}.py').write_text(f'_base_ = {bases}\n{name} = 1\n')
    assert read_config(str(tmp_path / 'mine.py')).a == 1


# Photos

@pytest.fixture
def folder(tmp_path):
    """Photos, hidden copies, links to a folder, to itself, and to a photo."""
    for name in ('photos/a.png', 'photos/.ipynb_checkpoints/a-checkpoint.png', 'photos/._b.png',
                 'elsewhere/0001.png', 'elsewhere/.0002.png', 'photos/sub/c.JPG'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4)).save(path)
    (tmp_path / 'photos/notes.txt').write_text('no image')
    (tmp_path / 'photos/linked').symlink_to('../elsewhere')
    (tmp_path / 'photos/sub/loop').symlink_to('..')
    (tmp_path / 'photos/sub/again').symlink_to('../../elsewhere')
    (tmp_path / 'photos/z.png').symlink_to('a.png')
    (tmp_path / 'photos/gone.png').symlink_to('nowhere.png')
    return tmp_path / 'photos'


def test_photos_are_taken_once_without_hidden_ones(folder):
    found, line = find_photos(folder)
    assert [str(path.relative_to(folder)) for path in found] == ['a.png', 'linked/0001.png', 'sub/c.JPG']
    assert line == (f'photos: 3 images in 3 folders below {folder}; '
                    'passed over: 3 hidden, 3 linked twice')


def test_a_hidden_folder_may_be_named(folder):
    found, line = find_photos(folder / '.ipynb_checkpoints')
    assert len(found) == 1 and 'passed over' not in line


@pytest.mark.parametrize('name', ['empty', 'hidden only'])
def test_a_folder_without_photos_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    if name == 'hidden only':
        Image.new('RGB', (4, 4)).save(tmp_path / name / '.a.png')
    with pytest.raises(InputError, match='no image in .*, not in hidden files'):
        find_photos(tmp_path / name)


def test_a_photo_may_have_any_name(tmp_path):
    path = os.fsencode(tmp_path) + b'/\xff\xfe.png'
    with open(path, 'wb') as file:
        Image.new('RGB', (4, 4)).save(file, 'PNG')
    found, line = find_photos(tmp_path)
    assert os.fsencode(found[0]) == path and line.startswith('photos: 1 images')
