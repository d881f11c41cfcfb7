"""Building from dicts and names, and errors that teach."""
from dataclasses import dataclass

import pytest

from sparse_dense_attacks import ATTACKS, GOALS, InputError, SparsePGD
from sparse_dense_attacks.registry import Registry, nearest, snake_case


@pytest.mark.parametrize('name, expected', [('SparsePGD', 'sparse_pgd'), ('PGD0', 'pgd0'), ('RandomPixels', 'random_pixels'),
                                            ('SigmaZero', 'sigma_zero'), ('WIFGSM', 'wifgsm'), ('SparseRS', 'sparse_rs'),
                                            ('SparseAutoAttack', 'sparse_auto_attack'), ('DetectorLoss', 'detector_loss')])
def test_snake_case(name, expected):
    assert snake_case(name) == expected


@pytest.mark.parametrize('name', [name for name in ATTACKS if name not in (
    'ForeignAttack', 'UniversalPatch')])  # which need a function, an artefact
def test_every_attack_builds_from_its_name_alone_in_both_spellings(name):
    assert ATTACKS.build(name) == ATTACKS.build(dict(type=snake_case(name))) == ATTACKS.get(name)()


def test_dict_wins_over_defaults_and_is_not_changed():
    cfg = dict(type='SparsePGD', k=5, _scope_='mmdet')
    assert ATTACKS.build(cfg, k=1, steps=7) == SparsePGD(k=5, steps=7)
    assert cfg == dict(type='SparsePGD', k=5, _scope_='mmdet')


def test_finished_object_passes_through():
    attack = SparsePGD(k=5)
    assert ATTACKS.build(attack) is attack


@pytest.mark.parametrize('cfg, message', [
    ('SparsPGD', "unknown attack 'SparsPGD': did you mean 'SparsePGD'?"),
    ('zzz', "unknown attack 'zzz': valid: .*PGD0.*SparsePGD"),
    (dict(k=5), "needs a 'type': valid: .*SparsePGD"),
    (dict(type=None), "needs a 'type'"),
    (dict(type='SparsePGD', step=5), "SparsePGD has no argument 'step': did you mean 'steps'?"),
    (dict(type='SparsePGD', gradient='projektd'), "gradient = 'projektd', expected one of .*; did you mean 'projected'?"),
    (dict(type='SparsePGD', gradient=None), "SparsePGD: gradient = None, expected one of "),
    (dict(type='SparsePGD', patience=0), 'patience = 0, expected an int >= 1'),
    (dict(type='SparsePGD', eps_inf=255), 'eps_inf = 255, expected a number in .0, 1.'),
    (dict(type='SparsePGD', alpha=0), 'alpha = 0, expected a number in .0, 2.'),
])
def test_errors_name_the_fix(cfg, message):
    with pytest.raises(InputError, match=message.replace('?', r'\?')) as error:
        ATTACKS.build(cfg)
    assert '\n' not in str(error.value)


def test_goals_refuse_an_unknown_name():
    with pytest.raises(InputError, match="unknown goal 'vannish': did you mean 'Vanish'"):
        GOALS.build('vannish')


def test_missing_argument_is_an_input_error():
    registry = Registry('thing')

    @registry.register_module()
    @dataclass(frozen=True)
    class Thing:
        size: int

    with pytest.raises(InputError, match='Thing: .*size'):
        registry.build('Thing')


def test_plain_classes_can_be_registered():
    registry = Registry('thing')

    @registry.register_module()
    class Thing:
        def __init__(self, size=1):
            self.size = size

    assert registry.build('thing', size=2).size == 2
    with pytest.raises(InputError, match="did you mean 'size'"):
        registry.build('thing', siz=2)


def test_nearest_of_nothing():
    assert nearest('a', []) == 'valid: none'


def test_a_taken_name_is_refused():
    registry = Registry('thing')

    @registry.register_module()
    class Taken:
        pass

    registry.register_module()(Taken)
    with pytest.raises(KeyError, match="thing 'Taken' is registered already"):
        registry.register_module()(type('Taken', (), {'__module__': 'elsewhere'}))
    assert registry.get('taken') is Taken
