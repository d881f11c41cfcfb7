"""The relay: Sparse-PGD, then sigma-zero on what it leaves, both within one budget."""
import torch

from sparse_dense_attacks import SigmaZero, SparsePGD
from sparse_dense_attacks.attacks.relay import Relay
from tests.helpers import Net, objective, pictures


def batch(gain=0.3, **options):
    return objective(Net(gain=gain), pictures(30, 3, 7, 9, seed=3), **options)


def test_members_share_steps_and_budget():
    assert Relay(k=9, steps=50).members == (
        SparsePGD(k=9, steps=20), SigmaZero(budget=9, steps=30, unit='pixel'))
    few = Relay(k=9, steps=1, early_stop=False).members
    assert few == (SparsePGD(k=9, steps=1, early_stop=False), SigmaZero(budget=9, steps=1, unit='pixel'))


def test_sigma_zero_breaks_what_sparse_pgd_leaves():
    judge, relay = batch(), Relay(k=8, steps=60, share=0.1)
    whole, first = relay(judge), relay.members[0](judge)
    assert (whole.success >= first.success).all() and whole.success.sum() > first.success.sum()
    assert torch.equal(whole.images[first.success], first.images[first.success])
    assert (whole.l0_pixels <= 8).all() and (whole.forwards <= 64).all() and (whole.backwards <= 59).all()
    assert (whole.forwards == 64)[~whole.success].all()


def test_what_needs_more_than_the_budget_is_cut_and_the_better_one_stays():
    """A success of sigma-zero with too many pixels counts for what its k largest changes do."""
    judge = batch(gain=0.1)
    result = Relay(k=3, steps=40, share=0.1)(judge)
    assert not result.success.all() and (result.l0_pixels <= 3).all()
    alone = Relay(k=3, steps=40, share=0.1).members[0](judge)
    everyone = torch.arange(30)
    with torch.no_grad():
        both, first = judge(result.images, everyone), judge(alone.images, everyone)
    assert (both.success | (both.loss >= first.loss - 1e-6)).all()


def test_budgets_per_image():
    keys = [f'{number}' for number in range(30)]
    k = {key: 2 + number % 3 for number, key in enumerate(keys)}
    result = Relay(k=k, steps=30)(batch(keys=keys))
    assert (result.l0_pixels <= torch.tensor(list(k.values()))).all() and result.l0_pixels.max() == 4
