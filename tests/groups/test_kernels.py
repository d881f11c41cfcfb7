"""Structured kernels against naive loops, hand-drawn patterns and brute force."""
import itertools

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sparse_dense_attacks import InputError
from sparse_dense_attacks.groups import Column, Patch, Picture, Pixel, Row, Shape
from sparse_dense_attacks.groups.shape import GLYPHS
from sparse_dense_attacks.registry import KERNELS

KERNELS_UNDER_TEST = [Pixel(), Row(), Column(), Patch(), Patch(2, 3, 2), Patch(1, 1), Patch(3, 2, 4), Shape('L', 7),
                      Shape('F', 7, 3), Shape('heart', 5, 2)]
every_kernel = pytest.mark.parametrize('kernel', KERNELS_UNDER_TEST, ids=str)
SIZE = 11, 10


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def pixels_of(kernel, i, j, size):
    """The pixels of group (i, j) as a set, from the definition."""
    h, w = size
    if isinstance(kernel, Row):
        return {(i, b) for b in range(w)}
    if isinstance(kernel, Column):
        return {(a, j) for a in range(h)}
    if isinstance(kernel, Pixel):
        return {(i, j)}
    return {(i * kernel.stride + a, j * kernel.stride + b) for a, b in kernel.pattern.nonzero().tolist()}


@every_kernel
def test_expansion_and_correlation_are_the_naive_loops(kernel):
    gh, gw = kernel.grid(*SIZE)
    v, a = random(2, 3, gh, gw), random(2, 3, *SIZE, seed=1) - 0.5
    expanded, means = torch.zeros(2, 3, *SIZE), torch.zeros(2, 3, gh, gw)
    for i, j in itertools.product(range(gh), range(gw)):
        pixels = pixels_of(kernel, i, j, SIZE)
        for y, x in pixels:
            expanded[..., y, x] += v[..., i, j]
            means[..., i, j] += a[..., y, x] / len(pixels)
    torch.testing.assert_close(kernel.expand(v, SIZE), expanded.clamp(max=1))
    torch.testing.assert_close(kernel.correlate(a), means)


@every_kernel
def test_correlation_is_the_adjoint_of_the_expansion_over_the_pixels_of_a_group(kernel):
    gh, gw = kernel.grid(*SIZE)
    v, a = random(1, 1, gh, gw) / 100, random(1, 1, *SIZE, seed=1)  # so small that nothing is clipped
    number = len(pixels_of(kernel, 0, 0, SIZE))
    torch.testing.assert_close((kernel.expand(v, SIZE) * a).sum(), (v * kernel.correlate(a)).sum() * number)


@pytest.mark.parametrize('name', ['F', 'L', '7'])
def test_letters_are_not_mirrored(name):
    drawn = {'F': ['#####', '#....', '#....', '####.', '#....', '#....', '#....'],
             'L': ['#....', '#....', '#....', '#....', '#....', '#....', '#####'],
             '7': ['#####', '....#', '...#.', '..#..', '.#...', '.#...', '.#...']}[name]
    expected = torch.tensor([[dot == '#' for dot in row] for row in drawn])
    kernel = Shape(name, 7)
    assert torch.equal(kernel.pattern, expected)
    v = torch.zeros(1, 1, *kernel.grid(12, 11))
    v[0, 0, 2, 4] = 1
    placed = kernel.expand(v, (12, 11))[0, 0].bool()
    assert torch.equal(placed[2:9, 4:9], expected) and placed.sum() == expected.sum()


def test_every_glyph_is_its_own_and_scales():
    assert len({tuple(Shape(name, 7).pattern.flatten().tolist()) for name in GLYPHS}) == 36
    assert torch.equal(Shape('f', 14).pattern, Shape('F', 7).pattern.repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize('size', [5, 7, 10, 15])
@pytest.mark.parametrize('name', ['heart', 'star', 'cross', 'disc'])
def test_outlines_are_symmetric_and_of_their_size(name, size):
    pattern = Shape(name, size).pattern
    assert pattern.shape == (size, size) and torch.equal(pattern, pattern.flip(1)) and 0 < pattern.float().mean() < 0.9
    upright = torch.equal(pattern, pattern.flip(0))
    assert upright == (name in ('cross', 'disc'))
    if name == 'heart':
        assert pattern[:size // 2].sum() > pattern[-(size // 2):].sum(), 'the tip is below'
    if name == 'star' and size > 5:
        assert pattern[0].sum() < 3, 'the tip is above'


@pytest.mark.parametrize('mode', ['L', 'RGBA'])
def test_picture_is_read_as_it_is_drawn(tmp_path, mode):
    path, image = str(tmp_path / 'p.png'), Image.new(mode, (3, 2), 0)
    for x, y in ((0, 0), (2, 0), (2, 1)):
        image.putpixel((x, y), 255 if mode == 'L' else (0, 0, 0, 255))
    image.save(path)
    assert Picture(path).pattern.tolist() == [[True, False, True], [False, False, True]]


@pytest.mark.parametrize('shape', [(1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize('kernel', [Pixel(), Row(), Column(), Patch(1, 1)], ids=str)
def test_rows_and_columns_of_thin_images_are_not_confused(kernel, shape):
    gh, gw = kernel.grid(*shape)
    groups = {Row: shape[0], Column: shape[1]}.get(type(kernel), shape[0] * shape[1])
    assert gh * gw == groups
    v = torch.zeros(1, 1, gh, gw)
    v[0, 0, 0, 0] = 1
    expanded = kernel.expand(v, shape)
    assert expanded.shape == (1, 1, *shape) and expanded.sum() == len(pixels_of(kernel, 0, 0, shape))


@every_kernel
def test_groups_are_usable_where_they_lie_in_the_region(kernel):
    region = random(3, 1, *SIZE) < 0.97
    region[..., 8:], region[:, :, 10:] = False, False
    usable = kernel.usable(region)
    for b, i, j in itertools.product(range(3), *map(range, kernel.grid(*SIZE))):
        inside = [bool(region[b, 0, y, x]) for y, x in pixels_of(kernel, i, j, SIZE)]
        assert usable[b, 0, i, j] == (any if isinstance(kernel, Row | Column) else all)(inside)
    assert usable.any() and not usable.all()


def smallest_cover(kernel, changed):
    wanted = set(map(tuple, changed.nonzero().tolist()))
    groups = [pixels_of(kernel, *place, changed.shape) for place in itertools.product(*map(range, kernel.grid(*changed.shape)))]
    lonely = wanted - set().union(*groups)
    for number in itertools.count():
        if any(wanted - lonely <= set().union(*chosen) for chosen in itertools.combinations(groups, number)):
            return number + len(lonely)


@pytest.mark.parametrize('kernel, exact', [(Pixel(), True), (Row(), True), (Column(), True), (Patch(2, 2, 2), True),
                                           (Patch(2, 2, 3), True), (Patch(2, 2), False), (Patch(1, 3), False)], ids=str)
@pytest.mark.parametrize('seed', range(6))
def test_cover_is_the_smallest_or_little_more(kernel, exact, seed):
    changed = random(2, 4, 5, seed=seed) < 0.2
    everywhere = kernel.usable(torch.ones(2, 1, 4, 5, dtype=torch.bool))
    for count, one in zip(kernel.cover(changed, everywhere).tolist(), changed, strict=True):
        best = smallest_cover(kernel, one)
        assert count == best if exact else best <= count <= best + 1


def greedy_cover(kernel, changed, usable):
    """One group after the other, the one with most pixels left first, from the definition."""
    left = set(map(tuple, changed.nonzero().tolist()))
    groups = [pixels_of(kernel, *place, changed.shape) for place in usable.nonzero().tolist()]
    lonely = left - set().union(*groups)
    left -= lonely
    number = len(lonely)
    while left:
        left -= max(groups, key=lambda group: len(group & left))
        number += 1
    return number


@pytest.mark.parametrize('kernel', [Patch(3, 2), Patch(4, 3, 2), Patch(3, 5, 4), Shape('L', 7), Shape('heart', 5, 2)], ids=str)
def test_cover_of_overlapping_groups_takes_the_largest_first(kernel):
    changed = random(4, 13, 16) < torch.tensor([0.05, 0.3, 0.7, 0.])[:, None, None]
    usable = random(4, 1, *kernel.grid(13, 16), seed=1) < 0.8
    expected = [greedy_cover(kernel, *pair) for pair in zip(changed, usable[:, 0], strict=True)]
    assert kernel.cover(changed, usable).tolist() == expected


def test_cover_of_overlapping_windows_is_less_than_their_number():
    v = torch.zeros(1, 1, 4, 4)
    v[0, 0, 0, :3] = 1  # 3 x 3 windows at columns 0, 1, 2: the middle one is redundant
    assert Patch().cover(Patch().expand(v, (6, 6))[:, 0] > 0, torch.ones_like(v) > 0).tolist() == [2]
    assert Patch().cover(torch.zeros(2, 6, 6, dtype=torch.bool), torch.ones(2, 1, 4, 4) > 0).tolist() == [0, 0]


def test_cover_is_the_same_beside_padding():
    kernel = Shape('cross', 5)
    changed, region = random(40, 6, 9) < 0.5, torch.ones(40, 1, 6, 9, dtype=torch.bool)
    alone = kernel.cover(changed, kernel.usable(region))
    assert torch.equal(alone, kernel.cover(F.pad(changed, (0, 4, 0, 5)), kernel.usable(F.pad(region, (0, 4, 0, 5)))))


@pytest.mark.parametrize('make, message', [
    (lambda: Patch(0, 3), 'height = 0, expected'), (lambda: Patch(3, 2.5), 'width = 2.5, expected'),
    (lambda: Patch(stride=0), 'stride = 0, expected'), (lambda: Shape('hart'), "did you mean 'heart'"),
    (lambda: Shape('AB'), "unknown name 'AB'"), (lambda: Shape('A', 5), 'size = 5, expected'),
    (lambda: Picture('/nowhere.png'), 'no file'), (lambda: KERNELS.build('rows'), "did you mean 'Row'")])
def test_bad_kernels_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_kernel_larger_than_the_images_has_no_group_in_them():
    region = torch.ones(1, 1, 4, 9, dtype=torch.bool)
    usable = Patch(5, 5).usable(region)
    assert usable.numel() == 0 and Patch(5, 5).cover(region[:, 0], usable).tolist() == [36]


def test_empty_and_broken_pictures_are_refused(tmp_path):
    empty, broken = tmp_path / 'empty.png', tmp_path / 'broken.png'
    Image.new('L', (3, 3)).save(empty)
    broken.write_text('no image')
    for path, message in ((empty, 'at least one pixel'), (broken, 'no image file')):
        with pytest.raises(InputError, match=message):
            Picture(str(path))


@every_kernel
def test_kernels_are_values(kernel):
    fields = {name: getattr(kernel, name) for name in kernel.__dataclass_fields__}
    again = KERNELS.build(dict(type=type(kernel).__name__, **fields))
    assert again == kernel and hash(again) == hash(kernel)
