"""One object says what an attacker may do, whichever way it is given."""
import pytest
import torch

from sparse_dense_attacks import InputError, SparsePGD, ThreatModel, attack
from sparse_dense_attacks.testing import Net, pictures
from sparse_dense_attacks.victims.where import Where


def test_defaults_dicts_and_objects_are_one_thing():
    assert ThreatModel.build() == ThreatModel() == ThreatModel.build({}) == ThreatModel.build(ThreatModel())
    assert ThreatModel().where == Where('anywhere')
    assert ThreatModel(where=dict(place='inside', classes=['car'])).where.classes == ['car']


def test_fields_given_one_by_one_join_the_dict():
    assert ThreatModel.build(dict(seed=3), dict(eight_bit=False)) == ThreatModel(seed=3, eight_bit=False)
    assert ThreatModel.build(dict(seed=3), dict(seed=3)).seed == 3
    assert ThreatModel.build(ThreatModel(max_forwards=5), dict(max_forwards=5)).max_forwards == 5


@pytest.mark.parametrize('cfg, older, message', [
    (dict(seed=1), dict(seed=2), r'seed = 2 beside threat.seed = 1: they disagree'),
    (dict(where='inside'), dict(where='outside'), "where = 'outside' beside threat.where = 'inside'"),
    (dict(sed=1), {}, "threat has no field 'sed': did you mean 'seed'"),
    ({}, dict(wher='inside'), "AttackHook has no argument 'wher': did you mean 'where'"),
    (3, {}, r'threat = 3, expected a dict'),
    (dict(grid='image'), {}, "grid = 'image', expected one of input"),
    (dict(eight_bit='maybe'), {}, "eight_bit = 'maybe', expected True or False"),
    (dict(seed=1.5), {}, 'seed = 1.5, expected an int'),
    (dict(max_forwards=0), {}, 'max_forwards = 0, expected an int >= 1'),
    (dict(where='nowhere'), {}, "where = 'nowhere': no such folder of masks"),
])
def test_what_makes_no_sense_is_refused(cfg, older, message):
    with pytest.raises(InputError, match=message):
        ThreatModel.build(cfg, older, 'AttackHook')


def test_attack_takes_it_either_way():
    model, images = Net(), pictures(2, 3, 6, 6)
    labels, core = model(images).argmax(1), SparsePGD(k=2, steps=4)
    whole = attack(model, images, labels, core, threat=dict(seed=5, max_forwards=3))
    single = attack(model, images, labels, core, seed=5, max_forwards=3)
    assert torch.equal(whole.images, single.images)
    assert whole.forwards.tolist() == single.forwards.tolist() and whole.forwards.max() <= 3
    with pytest.raises(InputError, match='seed = 4 beside threat.seed = 5'):
        attack(model, images, labels, core, threat=dict(seed=5), seed=4)
    with pytest.raises(InputError, match='no outlined objects'):
        attack(model, images, labels, core, where='inside')
