"""Every field there is refuses what makes no sense in one line that names it, or says that it takes it."""
import dataclasses
import inspect

import pytest
import torch
from torch import nn

from sparse_dense_attacks import (
    ATTACKS,
    DEFENCES,
    GOALS,
    KERNELS,
    PLACEMENTS,
    VICTIMS,
    Artefact,
    InputError,
    ThreatModel,
    attack,
)
from sparse_dense_attacks.patches import Fixed, Recipe, Transforms
from sparse_dense_attacks.victims.where import Where
from tests.helpers import Net, pictures

NONSENSE = dict(nan=float('nan'), infinity=float('inf'), word='abc', huge=10 ** 400, minus=-1,
                true=True, none_of=[], empty={}, nested=[[1]])
# What is accepted, and why. Values that depend on the model's classes are refused with it.
ANY_SIGN = {'minus'}
ACCEPTED = {
    'seed': ANY_SIGN, 'loss_seed': ANY_SIGN, 'offset': ANY_SIGN, 'ignore_index': ANY_SIGN,
    'erase': ANY_SIGN | {'word'}, 'target': ANY_SIGN | {'word'},  # a class or its name
    'key_column': {'word'}, 'target_column': {'word'},  # any text is a name of a column
    'options': {'empty'}, 'victim': {'empty'}, 'threat': {'empty'}, 'run_info': {'empty'},
    'classes': {'none_of'},  # unknown
    'published': {'none_of'},  # nothing is done as published
    'eight_bit': {'true'}, 'batched': {'true'}, 'early_stop': {'true'}, 'reweight': {'true'},
    'prune': {'true'}, 'accumulate': {'true'}, 'boxes_follow_resize': {'true'},
    'use_masks': {'true'}, 'warm': {'true'}, 'resume': {'true'}, 'undetected': {'true'},
    'where': {'empty'},  # anywhere
    'measures': {'none_of'},  # none
    'rotation': ANY_SIGN, 'brightness': ANY_SIGN, 'raised': ANY_SIGN, 'transforms': {'empty'},
    'random': {'true'}, 'apart': {'true'},
    'layer': {'word'},  # which layers there are is known to the model
}
PATCH = Artefact(pictures(1, 3, 2, 2)[0], torch.ones(2, 2) > 0, Fixed())
NEEDED = {'UniversalPatch': dict(artefact=PATCH), 'Custom': dict(function='len'),
          'TargetedPixels': dict(erase=1), 'Picture': {}, 'ForeignAttack': dict(function='len'),
          'ASLO': {}, 'TorchClassifier': dict(model=nn.Identity()),
          'TorchSegmenter': dict(model=nn.Identity()),
          'TorchDetector': dict(model=nn.Identity(), decode=len)}
CALLED = {'base': 'attack', 'shape': 'kernel', 'attack': 'attack', 'place': 'where', 'threat': 'threat'}


def registered():
    found = [cls for registry in (ATTACKS, GOALS, KERNELS, PLACEMENTS, VICTIMS, DEFENCES)
             for cls in (registry.get(name) for name in registry)]
    return [*found, ThreatModel, Where, Recipe, Transforms]


def library_classes():
    for library in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(library, exc_type=ImportError)
    from mmseg.models import EncoderDecoder

    from sparse_dense_attacks.engine.hooks import (
        AdversarialTrainingHook,
        AttackHook,
        AttackVisualizationHook,
    )
    from sparse_dense_attacks.victims.mmdet import MMDetDetector
    from sparse_dense_attacks.victims.mmpretrain import MMPretrainClassifier
    from sparse_dense_attacks.victims.mmseg import MMSegSegmenter

    class Bare(EncoderDecoder):
        num_classes = out_channels = 3

        def __init__(self):
            nn.Module.__init__(self)

    victims = {MMDetDetector: dict(model=nn.Identity()), MMSegSegmenter: dict(model=Bare()),
               MMPretrainClassifier: dict(model=nn.Identity())}
    return {AdversarialTrainingHook: dict(attack='pgd0', goal='vanish'),
            AttackHook: dict(attack='pgd0', goal='vanish'), AttackVisualizationHook: {}, **victims}


def check(cls, field, value, needed):
    given = dict(needed)
    if cls.__name__ == 'TargetedPixels' and field == 'target':
        del given['erase']
    if cls is Where and field == 'classes':
        given['place'] = 'inside'
    given[field] = NONSENSE[value]
    if value in ACCEPTED.get(field, ()):
        try:
            cls(**given)
        except InputError as error:  # 'abc' is no rule, no file
            assert field in str(error)
        return
    with pytest.raises(InputError) as error:
        cls(**given)
    line = str(error.value)
    assert '\n' not in line and len(line) < 500
    assert field in line or CALLED.get(field, field) in line, line


def fields_of(cls):
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.init]
    return [name for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD]


CASES = [(cls, field) for cls in registered() for field in fields_of(cls)
         if cls.__module__.startswith('sparse_dense_attacks.')
         and not cls.__module__.endswith(('mmdet', 'mmseg', 'mmpretrain'))]


@pytest.mark.parametrize('value', NONSENSE)
@pytest.mark.parametrize(('cls', 'field'), CASES, ids=lambda part: getattr(part, '__name__', part))
def test_no_field_takes_nonsense(cls, field, value):
    check(cls, field, value, NEEDED.get(cls.__name__, {}))


@pytest.mark.parametrize('value', NONSENSE)
def test_no_field_of_a_hook_or_library_model_takes_nonsense(value):
    for cls, needed in library_classes().items():
        for field in fields_of(cls):
            check(cls, field, value, needed)


@pytest.mark.parametrize('value', NONSENSE)
@pytest.mark.parametrize('name', ['resume', 'run_info', 'check'])
def test_the_loop_takes_no_nonsense_before_it_looks_at_anything_else(name, value):
    pytest.importorskip('mmengine')
    from sparse_dense_attacks.engine import AttackLoop
    if value in ACCEPTED.get(name, ()):
        return
    with pytest.raises(InputError, match=f'^AttackLoop: {name} = '):
        AttackLoop(None, None, None, 'pgd0', 'vanish', **{name: NONSENSE[value]})


@pytest.mark.parametrize('value', NONSENSE)
@pytest.mark.parametrize('name', ['attack', 'goal', 'threat', 'batch_size', 'keys', 'region',
                                  'targets', 'labels', 'seed', 'eight_bit', 'max_forwards', 'where',
                                  'rechecks', 'images', 'model', 'defence'])
def test_no_argument_of_attack_takes_nonsense(name, value):
    model, images = Net(), pictures(2, 3, 5, 5)
    given = dict(model=model, images=images, labels=model(images).argmax(1), attack='pgd0')
    given[name] = NONSENSE[value]
    if value in ACCEPTED.get(name, ()):
        return
    with pytest.raises(InputError) as error:
        attack(**given)
    line = str(error.value)
    assert '\n' not in line and name in line and len(line) < 500


def test_every_kind_of_object_is_asked():
    rooms = {cls.__module__.split('.')[1] for cls, _ in CASES}
    assert rooms == {'attacks', 'objectives', 'groups', 'patches', 'victims', 'defences', 'threat_model'}
