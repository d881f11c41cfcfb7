"""Curves and shapes of finished attacks."""
import numpy as np
import torch
from PIL import Image

from sparse_dense_attacks.evaluation import clusters, draw_curves, success_at


def test_success_at_known_answers():
    rates = success_at([0, 1, 2, 5, 9], sizes=[1, 5, 3, 2], success=[True, True, False, True])
    assert rates.tolist() == [0, 0.25, 0.5, 0.75, 0.75]
    assert np.isnan(success_at([1], [], [])).all()


def test_clusters_touch_at_edges_not_at_corners():
    changed = torch.tensor([[[1, 1, 0], [0, 0, 1], [1, 0, 1]], [[0, 0, 0]] * 3, [[1, 1, 1]] * 3]).bool()
    assert clusters(changed).tolist() == [3, 0, 1]


def test_chart_is_drawn(tmp_path):
    path = tmp_path / 'curve.png'
    results = {'SparsePGD': ([3, 10, 20], [True, True, False]), 'nothing': ([], []), 'SigmaZero': (torch.tensor([1, 2]), [1, 1])}
    draw_curves(results, path)
    picture = np.asarray(Image.open(path))
    assert picture.shape[0] > 400 and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10
