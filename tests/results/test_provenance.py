"""What a result came from."""
import pytest

pytest.importorskip('mmengine', reason='configs are read by mmengine: make setup')

from mmengine.config import Config  # noqa: E402

from sparse_dense_attacks.results import model_of  # noqa: E402

OWN, BESIDE = dict(mean=[1.0]), dict(mean=[2.0], std=[3.0])


@pytest.mark.parametrize('model, beside, used', [
    (dict(), None, None),
    (dict(), BESIDE, BESIDE),
    (dict(data_preprocessor=OWN), None, OWN),
    (dict(data_preprocessor=OWN), BESIDE, OWN),  # as a whole: nothing of the one beside it
])
def test_the_data_preprocessor_is_the_one_that_a_runner_takes(model, beside, used):
    cfg = Config(dict(model=model) | (dict(data_preprocessor=beside) if beside else {}))
    before = cfg.to_dict()
    assert model_of(cfg).get('data_preprocessor') == used
    assert cfg.to_dict() == before
