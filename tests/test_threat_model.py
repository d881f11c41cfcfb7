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


def test_pieces_have_eight_neighbours_and_the_share_is_that_of_the_image_without_padding():
    before = torch.zeros(3, 3, 4, 6)
    after = before.clone()
    after[0, 0, 0, 0] = after[0, 2, 1, 1] = 1  # diagonal: one piece
    after[1, :, 0, 0] = after[1, :, 2, 0] = after[1, :, 2, 2] = after[1, :, 3, 3] = 1
    said = ThreatModel(max_components=2).extent(before, after, [(4, 5), (4, 6), (4, 6)])
    assert said.components.tolist() == [1, 3, 0] and said.area.tolist() == [2 / 20, 4 / 24, 0]
    assert said.allowed.tolist() == [True, False, True]
    assert ThreatModel(max_area=0.1).extent(before, after, [(4, 5), (4, 6), (4, 6)]).allowed.tolist() == [True, False, True]
    assert not ThreatModel(max_components=9).extent(before, after, [(4, 6)] * 3).allowed.logical_not().any()


@pytest.mark.parametrize('limits', [dict(max_area=2 / 64), dict(max_components=2)])
def test_what_is_beyond_the_limits_is_no_success(limits):
    model, images = Net(gain=0.3), pictures(6, 3, 8, 8)
    labels = model(images).argmax(1)
    options = dict(attack='sparse_pgd', k=5, steps=40)
    free, held = (attack(model, images, labels, threat=threat, **options) for threat in (None, limits))
    assert torch.equal(free.images, held.images) and free.success.any()
    allowed = ThreatModel(**limits).extent(images, held.images, [(8, 8)] * 6).allowed
    assert torch.equal(held.success, free.success & allowed) and not held.success.all()
    assert (held.success_float <= held.success).all()
    within = attack(model, images, labels, threat=dict(max_area=5 / 64), **options)
    assert torch.equal(within.success, free.success)


@pytest.mark.parametrize('cfg, older, message', [
    (dict(max_components=0), {}, 'max_components = 0, expected an int >= 1'),
    (dict(max_area=2), {}, r'max_area = 2, expected a number in \(0, 1\]'),
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
