"""Cells of a sweep side by side: paired findings, table and figure."""
import csv

import numpy as np
import pytest
from PIL import Image

from sparse_dense_attacks import InputError
from sparse_dense_attacks.evaluation import difference_interval
from sparse_dense_attacks.evaluation.sweep import (
    Cell,
    check_same_images,
    draw_cells,
    judge_claim,
    value_of,
    write_cells,
)
from sparse_dense_attacks.results import Record


def record(key, pixels=4, success=True, right=True, **measures):
    return Record(str(key), success, success, right, l0_pixels=pixels, l0_elements=3 * pixels,
                  forwards=10, seconds=0.5, file=f'images/{key}.png', measures=measures)


def cell(name, sizes, broken=None, metrics=None):
    broken = [True] * len(sizes) if broken is None else broken
    return Cell(name, [record(key, size, one, anc=2 * size) for key, (size, one)
                       in enumerate(zip(sizes, broken, strict=True))], metrics or {})


def test_a_claim_holds_is_contradicted_or_not_decided():
    few, many = cell('few', range(1, 11)), cell('many', range(6, 16))
    for more, less, verdict in ((many, few, 'holds'), (few, many, 'contradicted')):
        found = judge_claim([few, many], 'takes more', 'pixels', more.name, less.name)
        assert found.verdict == verdict and abs(found.interval.value) == 5
        assert f'takes more: **{verdict}**.' in str(found)
    mixed = cell('mixed', [12, 1, 2, 9, 8, 3, 4, 11, 10, 5])
    assert judge_claim([few, mixed], 'x', 'anc', 'mixed', 'few').verdict == 'not decided'


def test_pairs_are_the_images_that_both_broke():
    first = cell('a', [1, 2, 3, 40], [True, True, True, False])
    second = cell('b', [2, 4, 60, 8], [True, True, False, True])
    found = judge_claim([first, second], '', 'pixels', 'b', 'a').interval
    assert str(found) == str(difference_interval([2, 4], [1, 2])) and found.images == 2
    rate = judge_claim([first, second], '', 'success', 'b', 'a').interval
    assert rate.images == 4 and rate.value == 0


def test_few_images_decide_nothing():
    found = judge_claim([cell('a', [1, 2, 3, 4]), cell('b', [9, 9, 9, 9])], '', 'pixels', 'b', 'a')
    assert found.interval.low > 0 and found.verdict == 'not decided'


def test_order_of_records_changes_nothing():
    first, second = cell('a', [1, 5, 2]), cell('b', [4, 4, 9])
    turned = Cell('b', second.records[::-1], {})
    assert judge_claim([first, second], '', 'pixels', 'b', 'a') == judge_claim(
        [first, turned], '', 'pixels', 'b', 'a')


def test_what_cannot_be_compared_is_said():
    cells = [cell('a', [1, 2]), cell('b', [1, 2], [False, False])]
    nothing = judge_claim(cells, '', 'pixels', 'a', 'b')
    assert nothing.interval.images == 0 and nothing.verdict == 'not decided'
    with pytest.raises(InputError, match="no cell says 'is_50' of an image, expected success, pixels"):
        judge_claim([cells[0], cell('c', [3, 4])], '', 'is_50', 'a', 'c')
    with pytest.raises(InputError, match="no cell 'd', there are a, b"):
        judge_claim(cells, '', 'pixels', 'a', 'd')
    with pytest.raises(InputError, match="'a' and 'e' are not about the same images: '2'"):
        check_same_images([cells[0], cell('e', [1, 2, 3])])
    check_same_images(cells)


def test_values_by_name():
    one = record('a', 7, anc=3, is_50=None)
    assert [value_of(one, name) for name in ('pixels', 'elements', 'groups', 'anc', 'is_50', 'none',
                                             'success')] == [7, 21, None, 3, None, None, 1]


def test_table_and_figure(tmp_path):
    cells = [cell('one | two', [1, 2, 3], metrics={'clean/mAP': 0.5, 'adv/mAP': 0.25}),
             cell('none', [9, 9, 9], [False] * 3), cell('three', [4, 4, 4])]
    findings = [judge_claim(cells, 'more', 'pixels', 'three', 'one | two')]
    stem = tmp_path / 'study'
    write_cells(cells, findings, stem, 'A title', 'A note.')
    page = stem.with_suffix('.md').read_text()
    assert page.startswith('# A title\n\nA note.\n') and r'one \| two' in page
    assert '0.500 -> 0.250' in page and '![](study.png)' in page and '- more: **' in page
    rows = list(csv.DictReader(stem.with_suffix('.csv').open()))
    assert [row['cell'] for row in rows] == ['one | two', 'none', 'three']
    assert float(rows[0]['pixels']) == 2 and rows[1]['pixels'] == '' and float(rows[1]['success']) == 0
    assert float(rows[0]['ms_per_forward']) == 50 and float(rows[0]['anc']) == 4
    draw_cells(cells, stem.with_suffix('.png'), 'pixels')
    picture = np.asarray(Image.open(stem.with_suffix('.png')))
    assert picture.shape[1] > 600 and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10
