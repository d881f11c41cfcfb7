"""The configs of configs/patches: headers, splits that are apart, recipes that are understood."""
from pathlib import Path

import pytest

pytest.importorskip('mmengine', reason='configs are read by mmengine: make setup')

from sparse_dense_attacks import GOALS
from sparse_dense_attacks.checks import from_fields
from sparse_dense_attacks.cli.configs import load_config
from sparse_dense_attacks.engine.fit import Judging
from sparse_dense_attacks.patches import Recipe

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs/patches').glob('*.py') if 'transfer' not in path.stem)


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_a_config_is_understood(path):
    pytest.importorskip('mmpretrain' if 'resnet' in path.stem else 'mmseg' if 'fpn' in path.stem else 'mmdet',
                        exc_type=ImportError)
    assert f'\n#     sda fit {path.as_posix()}\n' in (ROOT / path).read_text()
    given = load_config(str(ROOT / path)).to_dict()
    recipe = from_fields(Recipe, given['fit'], 'fit')
    from_fields(Judging, given.get('judge', {}), 'judge')
    train, test = given['fit_dataloader']['dataset']['indices'], given['test_dataloader']['dataset']['indices']
    assert train and test and not set(train) & set(test)
    goal, placement = GOALS.build(given['goal']), recipe.placement
    assert not placement.classes or tuple(placement.classes) == tuple(goal.classes)
