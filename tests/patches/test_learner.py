"""Learning on toys with known answers; stopped and resumed it ends where it would have."""
import json

import pytest
import torch
from PIL import Image

from sparse_dense_attacks import Artefact, InputError, UniversalPatch, Vanish
from sparse_dense_attacks.objectives.base import Surrounded
from sparse_dense_attacks.patches import Learner, Recipe
from sparse_dense_attacks.testing import Detections, Linear, Net, objective, pictures
from sparse_dense_attacks.types import Surroundings

SMALL = dict(type='Patch', height=3, width=3)


def linear(count=4, seed=0, channels='rgb'):
    """A classifier whose weight has known signs, on images that it gets right."""
    weight = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(seed))
    task = objective(Linear(weight, 5.0), pictures(count, 3, 6, 8), torch.ones(count, dtype=torch.long))
    return weight, Surrounded(task, Surroundings(None, channels))


def learned(recipe, task, stop=None, seed=0):
    learner = Learner(recipe, seed)
    for epoch in range(recipe.epochs):
        learner.epoch = epoch
        learner.step(task)
        learner.epoch = epoch + 1
        if epoch == stop:
            state = learner.state()
            learner = Learner(recipe, seed)
            learner.resume(state)
    return learner


@pytest.mark.parametrize('channels', ['rgb', 'bgr'])
def test_a_patch_goes_to_the_corners_of_the_colour_cube_that_a_linear_model_hates(channels):
    weight, task = linear(channels=channels)
    recipe = Recipe(dict(type='Fixed', position=(0, 0)), SMALL, epochs=40, lr=0.2)
    found = learned(recipe, task).artefact()
    expected = (weight[:, :3, :3] < 0).float()  # class 1 is left where the sum falls
    assert torch.equal(found.pattern, expected if channels == 'rgb' else expected.flip(0))
    result = UniversalPatch(found)(task)
    assert torch.equal(result.images[0, :, :3, :3], expected) and result.l0_pixels.tolist() == [9] * 4


def test_pixels_that_are_chosen_are_those_that_matter():
    """Weights of a few pixels stand out: the mask of Sparse-PGD finds them, wherever it began."""
    weight = torch.full((3, 6, 8), 0.01)
    places = [(0, 1), (2, 5), (5, 7)]
    for y, x in places:
        weight[:, y, x] = 3.
    task = objective(Linear(weight, 1.0), pictures(5, 3, 6, 8, seed=2), torch.ones(5, dtype=torch.long))
    task = Surrounded(task, Surroundings(None, 'rgb'))
    shape = dict(type='Patch', height=6, width=8)
    found = learned(Recipe('Pixels', shape, pixels=3, epochs=60, lr=0.2), task).artefact()
    assert found.mask.nonzero().tolist() == [list(one) for one in places]
    result = UniversalPatch(found)(task)
    assert result.l0_pixels.max() <= 3 and not result.images[:, :, 2, 5].any()


@pytest.mark.parametrize('recipe', [
    Recipe(dict(type='Random'), SMALL, transforms=dict(rotation=20, noise=0.1, scale=(0.8, 1.2)), tv=0.1, epochs=6),
    Recipe(dict(type='Pixels'), dict(type='Patch', height=6, width=8), pixels=0.1, start='random', epochs=6)])
def test_stopped_and_resumed_gives_an_equal_artefact(recipe):
    """Also through a file, as the loop keeps it."""
    task = Surrounded(objective(Net(gain=0.4), pictures(4, 3, 6, 8)), Surroundings(None, 'bgr'))
    whole, stopped = learned(recipe, task).artefact(), learned(recipe, task, stop=2).artefact()
    assert torch.equal(whole.pattern, stopped.pattern) and torch.equal(whole.mask, stopped.mask)
    assert whole.digest == stopped.digest
    assert learned(recipe, task, seed=1).artefact().digest != whole.digest


def test_learning_leaves_the_images_alone_and_draws_from_its_own_generators():
    task = Surrounded(objective(Net(), pictures(3, 3, 6, 8)), Surroundings(None, 'rgb'))
    before, state = task.images.clone(), torch.get_rng_state()
    learned(Recipe(dict(type='Random'), SMALL, transforms=dict(noise=0.1), start='random', epochs=2), task)
    assert torch.equal(task.images, before) and torch.equal(torch.get_rng_state(), state)


def test_the_start_may_be_a_logo_and_the_distance_from_it_has_a_cap(tmp_path):
    logo = tmp_path / 'logo.png'
    Image.new('RGB', (3, 3), (200, 100, 10)).save(logo)
    _, task = linear()
    found = learned(Recipe(dict(type='Fixed', position=(0, 0)), SMALL, start=str(logo), cap=0.1, epochs=30, lr=0.2), task)
    away = (found.pattern.detach() - torch.tensor([200, 100, 10])[:, None, None] / 255).abs()
    assert 0.0999 < away.max() <= 0.1001 and found.artefact().pattern.min() >= 0


def ball(*box):
    return (box, 1, 0.75)


def test_only_images_with_a_place_and_something_to_break_are_learned_from():
    boxes = [[ball(0, 0, 12, 12)], [], [ball(0, 0, 3, 3)], [ball(2, 2, 14, 14), ball(1, 1, 4, 4)]]
    scene = Detections(pictures(4, 3, 16, 16), boxes, boxes)
    task = Vanish(classes=['dog']).objective(scene)
    task = Surrounded(task, Surroundings(scene.boxes([1]), 'bgr'))
    step = Learner(Recipe('OnObjects', SMALL)).step(task)
    assert (step.images, step.patches, step.left_alone) == (2, 2, 2)
    none = Vanish(classes=['cat']).objective(scene)
    none = Surrounded(none, Surroundings(scene.boxes([0]), 'bgr'))
    assert Learner(Recipe('OnObjects', SMALL)).step(none).images == 0


def test_a_gradient_that_is_not_finite_changes_nothing():
    task = objective(lambda x: torch.stack([x.sum((1, 2, 3)) * torch.nan, x.sum((1, 2, 3))], 1), pictures(2, 3, 6, 8),
                     torch.zeros(2, dtype=torch.long))
    learner = Learner(Recipe(dict(type='Fixed'), SMALL))
    assert learner.step(Surrounded(task, Surroundings(None, 'rgb'))).skipped
    assert torch.equal(learner.pattern.detach(), learner.start)


def test_an_artefact_on_disk(tmp_path):
    _, task = linear()
    shape = dict(type='Shape', name='heart', size=5)
    found = learned(Recipe(dict(type='Fixed', size=None), shape, epochs=3), task).artefact(dict(model='toy'))
    path = found.write(tmp_path)
    again = Artefact.load(path)
    assert torch.equal(again.pattern, found.pattern) and torch.equal(again.mask, found.mask)
    assert again.story == dict(model='toy') and UniversalPatch(str(path)).digest == found.digest
    with Image.open(tmp_path / 'patch.png') as image:
        image = image.convert('RGBA')
        image.putpixel((2, 2), (1, 2, 3, 255))
        image.save(tmp_path / 'patch.png')
    with pytest.raises(InputError, match='another than was learned'):
        Artefact.load(path)
    (tmp_path / 'patch.png').unlink()
    with pytest.raises(InputError, match='no such file'):
        Artefact.load(path)
    with pytest.raises(InputError, match='expected the patch.json'):
        Artefact.load(tmp_path / 'none.json')
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(placement=3)))
    with pytest.raises(InputError, match="patch.json': placement = 3, expected"):
        Artefact.load(path)


def test_a_mask_that_is_empty_is_refused(tmp_path):
    Image.new('L', (4, 4), 0).save(tmp_path / 'mask.png')
    with pytest.raises(InputError, match='empty'):
        Recipe(shape=dict(type='Picture', path=str(tmp_path / 'mask.png')))


@pytest.mark.parametrize(('fields', 'named'), [
    (dict(pixels=3), 'Pixels'), (dict(shape='Row'), 'outline'), (dict(cap=0), 'cap'), (dict(epochs=0), 'epochs'),
    (dict(lr=-1.), 'lr'), (dict(start='none.png'), 'none.png'), (dict(placement='Somewhere'), 'Somewhere'),
    (dict(placement='Pixels', pixels=2, transforms=dict(rotation=3)), 'transforms'),
    (dict(placement='Pixels', pixels=2, tv=1.), 'tv'), (dict(placement='Pixels', shape=SMALL, pixels=10), 'pixels')])
def test_nonsense_is_refused(fields, named):
    with pytest.raises(InputError) as error:
        Learner(Recipe(**fields))
    assert named in str(error.value) and '\n' not in str(error.value)
