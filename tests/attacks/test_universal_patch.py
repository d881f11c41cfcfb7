"""The artefact in images: as painted by hand, without a pass, on every grid; contents beside it."""
import pytest
import torch

from sparse_dense_attacks import Artefact, InputError, UniversalPatch, Vanish, attack
from sparse_dense_attacks.objectives.base import Surrounded
from sparse_dense_attacks.patches import Fixed, Frame, OnObjects, Random
from sparse_dense_attacks.results import describe
from sparse_dense_attacks.testing import Detections, Net, objective, pictures
from sparse_dense_attacks.types import Surroundings
from sparse_dense_attacks.victims.surroundings import surrounded

WHOLE = torch.ones(4, 5) > 0
CORNER = Fixed(position=(0, 0))


def artefact(placement=CORNER, seed=9, mask=WHOLE):
    return Artefact(pictures(1, 3, 4, 5, seed=seed)[0], mask, placement)


def task(count=3, channels='rgb', **options):
    return Surrounded(objective(Net(), pictures(count, 3, 12, 14), **options), Surroundings(None, channels))


def test_the_same_image_as_by_hand():
    patch, images = artefact(Fixed(position=(1, 1))), pictures(3, 3, 12, 14)
    expected = images.clone()
    expected[:, :, 8:, 9:] = patch.pattern
    model = Net()
    result = attack(model, images, model(images).argmax(1), UniversalPatch(patch))
    assert torch.equal(result.images, expected)
    assert result.forwards.tolist() == [1] * 3 and not result.backwards.any()  # the look at the clean image
    assert torch.equal(result.success, model(expected).argmax(1) != model(images).argmax(1))


def test_images_of_a_bgr_loader_get_its_colours_the_other_way_round():
    patch = artefact()
    assert torch.equal(UniversalPatch(patch)(task(channels='bgr')).images[0, :, :4, :5], patch.pattern.flip(0))


def test_images_that_the_victim_gets_wrong_are_painted_too():
    right = Net()(pictures(3, 3, 12, 14)).argmax(1)
    wrong = task(labels=(right + 1) % 4)
    assert (UniversalPatch(artefact())(wrong).l0_pixels == 20).all()


def test_contents():
    patch = artefact()
    found = {content: UniversalPatch(patch, content)(task()).images[:, :, :4, :5] for content in ('learned', 'grey', 'noise')}
    assert (found['grey'] == 128 / 255).all()
    assert torch.equal(found['noise'][0], found['noise'][1]) and not torch.equal(found['noise'], found['learned'])


def test_the_colours_of_a_foreign_artefact(tmp_path):
    foreign = artefact(Frame(), seed=3)
    result = UniversalPatch(artefact(), str(foreign.write(tmp_path)))(task())
    assert torch.equal(result.images[0, :, :4, :5], foreign.pattern)


def test_another_foreign_artefact_of_the_same_path_is_another_attack(tmp_path):
    """A run is not resumed with it; without one the digest is the artefact's own."""
    path, patch = str(artefact(seed=3).write(tmp_path)), artefact()
    first = UniversalPatch(patch, path)
    artefact(seed=4).write(tmp_path)
    assert describe(UniversalPatch(patch, path)) != describe(first)
    assert UniversalPatch(patch, 'grey').digest == patch.digest


def test_size_angle_and_brightness():
    patch = artefact(Fixed(position=(0.5, 0.5)))
    plain, large, bright = (UniversalPatch(patch, **options)(task()) for options in (
        {}, dict(scale=2.0), dict(brightness=1.0)))
    assert plain.l0_pixels.tolist() == [20] * 3 and large.l0_pixels.tolist() == [80] * 3
    assert (bright.images[0, :, 4:8, 4:9] == 1).all()
    turned = UniversalPatch(Artefact(patch.pattern[:, :, :4], WHOLE[:, :4], patch.placement), rotation=180)(task())
    assert torch.equal(turned.images[0, :, 4:8, 5:9], patch.pattern[:, :, :4].rot90(2, (1, 2)))


def test_an_image_alone_as_in_a_batch_and_in_any_order():
    patch = UniversalPatch(artefact(Random()))
    together = patch(task(keys=['a', 'b', 'c']))
    images = pictures(3, 3, 12, 14)
    alone = Surrounded(objective(Net(), images[2:], keys=['c']), Surroundings(None, 'rgb'))
    assert torch.equal(patch(alone).images[0], together.images[2])
    assert not torch.equal(patch(alone, seed=1).images, patch(alone).images)


def detection(*boxes):
    boxes = [[((*box,), 1, 0.75) for box in image] for image in boxes]
    scene = Detections(pictures(len(boxes), 3, 20, 20), boxes, boxes)
    return scene, Vanish().objective(scene)


def test_on_objects_of_a_class_and_what_is_too_small_is_counted():
    scene, inner = detection([(0, 0, 16, 16)], [(0, 0, 16, 16), (3, 3, 6, 6)], [(1, 1, 5, 5)], [])
    patch = UniversalPatch(artefact(OnObjects(classes=['dog'], scale=0.5, measure='area', raised=0)))
    told = surrounded(inner, patch, scene, 'bgr')
    result = patch(told)
    assert (result.l0_pixels > 0).tolist() == [True, True, False, False]
    assert result.short.tolist() == [False, False, True, False]
    assert patch.measures(told) == [dict(patches=1, left_alone=0), dict(patches=1, left_alone=1),
                                    dict(patches=0, left_alone=1), dict(patches=0, left_alone=0)]
    other = UniversalPatch(artefact(OnObjects(classes=['cat'])))
    assert not other(surrounded(inner, other, scene, 'bgr')).l0_pixels.any()
    wrong = UniversalPatch(artefact(OnObjects(classes=['dgo'])))
    with pytest.raises(InputError, match="did you mean 'dog'"):
        surrounded(inner, wrong, scene, 'bgr')


def test_images_without_any_object_stay_as_they_are():
    scene, inner = detection([], [])
    patch = UniversalPatch(artefact(OnObjects()))
    assert not patch(surrounded(inner, patch, scene, 'rgb')).l0_pixels.any()


def test_a_patch_larger_than_the_image_is_left_out_and_said():
    with pytest.warns(RuntimeWarning, match='stay as they are'):
        result = UniversalPatch(artefact(Fixed(size=13)))(task())
    assert result.short.all() and not result.l0_pixels.any()


def test_what_nobody_knows_is_asked_for():
    with pytest.raises(InputError, match='channels'):
        UniversalPatch(artefact())(objective(Net(), pictures(1, 3, 12, 14)))
    assert UniversalPatch(artefact(), channels='rgb')(objective(Net(), pictures(1, 3, 12, 14))).l0_pixels == 20
    with pytest.raises(InputError, match='3 channels'):
        UniversalPatch(artefact())(Surrounded(objective(Net(1), pictures(1, 1, 12, 14)), Surroundings(None, 'rgb')))
    with pytest.raises(InputError, match='OnObjects needs the objects'):
        UniversalPatch(artefact(OnObjects()))(task())
    model, images = Net(), pictures(1, 3, 12, 14)
    with pytest.raises(InputError, match='outlined objects'):
        attack(model, images, model(images).argmax(1), UniversalPatch(artefact(OnObjects())))
