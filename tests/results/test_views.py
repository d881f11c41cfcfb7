"""What a run keeps for people to look at."""
import numpy as np

from sparse_dense_attacks.results.views import Views


def pair(height=5, width=7):
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    adversarial = clean.copy()
    adversarial[1, 2] ^= 255
    adversarial[4, 6, 0] ^= 1  # by one level in one channel
    return clean, adversarial


def test_the_clean_image_comes_back(tmp_path):
    clean, adversarial = pair()
    views = Views(tmp_path)
    views.add('../a b', clean, adversarial, (dict(label=1), dict(label=2)))
    undo = views.undo('../a b')
    assert np.array_equal(np.where(undo[..., 3:] > 0, undo[..., :3], adversarial), clean) and (undo[..., 3] > 0).sum() == 2
    assert views.answers()['../a b']['adversarial'] == dict(label=2)
    assert views.undo('other') is None and views.labels('../a b') is None
    assert all(tmp_path in path.resolve().parents for path in tmp_path.rglob('*'))


def test_label_maps_come_back(tmp_path):
    clean, adversarial = pair()
    before = np.arange(35, dtype=np.uint8).reshape(5, 7)
    Views(tmp_path).add('k', clean, adversarial, (before, 255 - before))
    found = Views(tmp_path).labels('k')
    assert np.array_equal(found[0], before) and np.array_equal(found[1], 255 - before)


def test_nothing_kept_is_nothing_known(tmp_path):
    views = Views(tmp_path)
    assert views.answers() == {} and views.classes() == []


def test_a_torn_line_is_passed_over(tmp_path):
    views = Views(tmp_path)
    views.add('a', *pair(), (dict(label=1), dict(label=1)))
    with (tmp_path / 'views/answers.jsonl').open('a') as file:
        file.write('{"key": "b", "cl')
    views.add('c', *pair(), (dict(label=1), dict(label=1)))
    views.add('d', *pair(), (dict(label=1), dict(label=1)))
    assert set(views.answers()) == {'a', 'd'}  # 'c' stands in the torn line, and is kept again when the run goes on
