"""What is kept of the images that are still under attack."""
import pytest
import torch

from sparse_dense_attacks.attacks import Active


def mask(*stay):
    return torch.tensor(stay, dtype=torch.bool)


def test_an_image_that_is_dropped_leaves_all_that_is_kept():
    x = torch.rand(4, 3, 2, 2)
    s = Active(x=x, k=torch.tensor([1, 2, 3, 4]), region=x[:, :1] > 0.5)
    s.late = torch.arange(4.)  # also what came after the start
    s.keep(mask(1, 0, 0, 1))
    assert len(s) == 2 and s.rows.tolist() == [0, 3]
    assert torch.equal(s.x, x[[0, 3]]) and s.k.tolist() == [1, 4]
    assert torch.equal(s.region, x[[0, 3], :1] > 0.5) and s.late.tolist() == [0, 3]


def test_rows_are_those_of_the_first_batch_however_often_images_leave():
    s = Active(x=torch.arange(6))
    s.keep(mask(0, 1, 1, 0, 1, 1))
    s.keep(mask(1, 0, 1, 1))
    assert s.rows.tolist() == s.x.tolist() == [1, 4, 5]
    s.keep(mask(0, 0, 0))
    assert not len(s) and s.x.shape == (0,)


def test_nothing_is_copied_while_all_stay():
    x = torch.rand(3, 1, 2, 2)
    s = Active(x=x)
    s.keep(mask(1, 1, 1))
    assert s.x is x


def test_what_was_given_is_not_written_into():
    x = torch.zeros(3, 1, 2, 2)
    s = Active(x=x)
    s.keep(mask(1, 0, 1))
    s.x += 1
    assert not x.any()


def test_views_of_one_value_become_tensors_of_their_own():
    s = Active(x=torch.zeros(3, 1, 1, 1).expand(3, 1, 2, 2))
    s.keep(mask(1, 1, 0))
    s.x[0, 0, 0, 0] = 1
    assert s.x.sum() == 1


def test_an_empty_batch():
    s = Active(x=torch.zeros(0, 3, 4, 4), k=torch.zeros(0, dtype=torch.int64))
    s.keep(mask())
    assert not len(s) and s.x.shape == (0, 3, 4, 4)


def test_names_are_found_or_missed_as_attributes_are():
    s = Active(x=torch.zeros(1))
    with pytest.raises(AttributeError, match='delta'):
        _ = s.delta
    assert 'x=' in repr(s)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device: make test-gpu')
def test_each_tensor_stays_where_it_is():
    s = Active(x=torch.arange(3., device='cuda'), stuck=mask(1, 0, 0))
    s.keep(mask(1, 0, 1))
    assert s.x.is_cuda and s.x.tolist() == [0, 2] and not s.stuck.is_cuda and s.rows.tolist() == [0, 2]
