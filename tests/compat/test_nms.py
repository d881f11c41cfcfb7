import math

import pytest
import torch

from sparse_dense_attacks.compat import nms as ours


def boxes_and_scores(count, seed=0, whole=False):
    """Boxes that overlap much; whole numbers and few different scores make ties."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 40
    size = torch.rand(count, 2, generator=generator) * 30 + 1
    scores = torch.rand(count, generator=generator)
    if whole:
        corner, size, scores = corner.round(), size.round(), (scores * 8).round() / 8
    return torch.cat((corner, corner + size), 1), scores


def overlap(a, b, offset=0):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = sum((box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b))
    return width * height / (areas - width * height)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.6])
def test_nms_against_the_definition(offset, threshold):
    boxes, scores = boxes_and_scores(60)
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(overlap(boxes[j].tolist(), boxes[i].tolist(), offset) <= threshold for j in kept):
            kept.append(i)
    assert 1 < len(kept) < 60
    assert ours.nms(boxes, scores, threshold, offset).tolist() == kept


def test_at_the_threshold_nms_keeps_and_match_suppresses():
    boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 6.]])  # they overlap by 0.6, which is more in float32 than in double
    scores = torch.tensor([0.5, 0.9])
    assert ours.nms(boxes, scores, 0.6, 0).tolist() == [1, 0]
    assert ours.nms_match(torch.cat((boxes, scores[:, None]), 1), 0.6) == [[1, 0]]


def test_match_groups_belong_to_the_boxes_that_nms_keeps():
    boxes, scores = boxes_and_scores(60)
    groups = ours.nms_match(torch.cat((boxes, scores[:, None]), 1), 0.3)
    assert [group[0] for group in groups] == ours.nms(boxes, scores, 0.3, 0).tolist()
    assert sorted(sum(groups, [])) == list(range(60))
    for first, *others in groups:
        assert all(overlap(boxes[first].tolist(), boxes[i].tolist()) >= 0.3 for i in others)
        assert scores[others].tolist() == sorted(scores[others].tolist(), reverse=True)


@pytest.mark.parametrize('method, score', [(ours.NAIVE, 0.0), (ours.LINEAR, 0.8 * 0.5), (ours.GAUSSIAN, 0.8 * math.exp(-0.5))])
def test_softnms_lowers_the_score_of_what_overlaps(method, score):
    boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 5.], [20., 0., 30., 10.]])
    dets = torch.empty(3, 5)
    indices = ours.softnms(boxes, torch.tensor([0.9, 0.8, 0.7]), dets, 0.3, 0.5, 0.01, method, 0)
    assert indices.tolist() == ([0, 2] if score == 0 else [0, 2, 1])
    assert torch.equal(dets[:len(indices), :4], boxes[indices])
    assert dets[:len(indices), 4].tolist() == pytest.approx([0.9, 0.7, score][:len(indices)])


def test_without_boxes():
    none, no_scores = torch.empty(0, 4), torch.empty(0)
    assert ours.nms(none, no_scores, 0.5, 0).tolist() == ours.nms(none, no_scores, 0.5, 1).tolist() == []
    assert ours.softnms(none, no_scores, torch.empty(0, 5), 0.5, 0.5, 0.0, 0, 0).tolist() == []
    assert ours.nms_match(torch.empty(0, 5), 0.5) == []


@pytest.mark.openmmlab
@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('whole', [False, True], ids=['', 'ties'])
class TestCompiled:
    @pytest.mark.parametrize('offset', [0, 1])
    @pytest.mark.parametrize('threshold', [0.3, 0.5, 0.6, 0.7])
    def test_nms(self, compare, seed, whole, offset, threshold):
        boxes, scores = boxes_and_scores(300, seed, whole)
        found, expected = compare('nms', lambda ops: ops.nms(boxes, scores, threshold, offset)[1])
        assert torch.equal(found, expected)

    @pytest.mark.parametrize('threshold', [0.3, 0.6])
    def test_nms_match(self, compare, seed, whole, threshold):
        boxes, scores = boxes_and_scores(300, seed, whole)
        dets = torch.cat((boxes, scores[:, None]), 1)
        found, expected = compare('nms', lambda ops: [group.tolist() for group in ops.nms_match(dets, threshold)])
        assert found == expected

    @pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
    @pytest.mark.parametrize('offset', [0, 1])
    def test_softnms(self, compare, seed, whole, method, offset):
        boxes, scores = boxes_and_scores(200, seed, whole)
        found, expected = compare('nms', lambda ops: ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset))
        assert torch.equal(found[1], expected[1])
        torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
