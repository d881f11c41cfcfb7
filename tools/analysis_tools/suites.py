"""The one table of attacks that the tools in this folder measure: a function for each question.

Each maps names to attacks: a tool says what an attack may spend, and picks names.
"""
from collections.abc import Mapping

from sparse_dense_attacks import (
    ASLO,
    GSE,
    PGD0,
    WIFGSM,
    Attack,
    BudgetSearch,
    Descent,
    ForeignAttack,
    RandomPixels,
    Relay,
    ScreenedCorners,
    SigmaZero,
    SparseAutoAttack,
    SparsePGD,
    SparseRS,
    StructuredSparsePGD,
    SwapPGD,
)
from sparse_dense_attacks.groups import Kernel, Patch, Pixel

PIXELS_ONLY = ('SparsePGD', 'SparsePGD unprojected', 'PGD0', 'RandomPixels',
               'ScreenedCorners', 'Relay')


def budget_suite(k: int | float, steps: int, queries: int, early_stop: bool = True,
                 kernel: Kernel | None = None) -> dict[str, Attack]:
    """The budget question: what k pixels do, or k groups of a kernel.

    Args:
        k: a count, or a share of the region.
        steps: iterations of the attacks along gradients, half the forwards of ScreenedCorners, and
            draws of random pixels.
        queries: of Sparse-RS.
        early_stop: whether an attack stops at an image's first success.
        kernel: the groups; single pixels by default.
    """
    kernel = kernel or Pixel()
    stop = dict(k=k, early_stop=early_stop)
    budget = dict(stop, steps=steps)
    suite = {
        'SparsePGD': SparsePGD(**budget),
        'SparsePGD unprojected': SparsePGD(**budget, gradient='unprojected'),
        'StructuredSparsePGD': StructuredSparsePGD(**budget, kernel=kernel),
        'SwapPGD': SwapPGD(**budget, kernel=kernel),
        'ScreenedCorners': ScreenedCorners(**stop, steps=2 * steps),
        'SparseRS': SparseRS(**stop, steps=queries, kernel=kernel),
        'SparseAutoAttack': SparseAutoAttack(**budget, queries=queries, kernel=kernel),
        'SparseAutoAttack plus': SparseAutoAttack(**budget, queries=queries, kernel=kernel,
                                                  version='plus'),
        'Relay': Relay(**budget),
        'PGD0': PGD0(**budget),
        'RandomPixels': RandomPixels(**budget),
    }
    # with single pixels the structured attack is Sparse-PGD
    left_out = ('StructuredSparsePGD',) if kernel == Pixel() else PIXELS_ONLY
    return {name: attack for name, attack in suite.items() if name not in left_out}


def minimum_suite(task: str, steps: int, budget: int | float | None = None,
                  kernel: Kernel | None = None) -> dict[str, Attack]:
    """The minimum question: the fewest changes.

    Args:
        task: what GSE and WI-FGSM are set for, a key of the table below.
        steps: iterations of sigma-zero, ASLO and Descent; of the other two where the table says so.
        budget: stop at results that change no more than this; see MinimumAttack.
        kernel: what 'Descent pixel' counts in place of pixels; the others know no groups.
    """
    as_many = dict(steps=steps)
    short = dict(iters=steps, search_steps=4)
    detector = dict(mu=0.1, sigma=0.05, k_hat=50, q=0.9, iters=steps, search_steps=6, steepness=1.0)
    demo = dict(mu=0.1, sigma=0.2, k_hat=steps, q=0.9, iters=2 * steps, search_steps=3, steepness=1)
    gse, wifgsm = {
        'cifar10': ({}, {}),  # as published
        'classifier': (short, as_many),
        'segmenter': (dict(short, steepness=1.0), as_many),
        'detector': (detector, as_many),
        'demo': (demo, dict(as_many, dense_steps=steps // 2, eps=32 / 255, steepness=1)),
        'cost': (dict(iters=steps, search_steps=1), as_many),
    }[task]
    common = dict(steps=steps, budget=budget)
    return {
        'SigmaZero': SigmaZero(**common),
        'SigmaZero pixel': SigmaZero(**common, unit='pixel'),
        'Descent': Descent(**common),
        'Descent pixel': Descent(**common, unit='pixel', kernel=kernel or Pixel()),
        'ASLO': ASLO(**common),
        'ASLO pixel': ASLO(**common, unit='pixel'),
        'ASLO no threshold': ASLO(**common, threshold='none'),
        'GSE': GSE(**gse, budget=budget),
        'WIFGSM': WIFGSM(**wifgsm, budget=budget),
        "WIFGSM l0='none'": WIFGSM(**wifgsm, l0='none', budget=budget),
    }


def search_suite(attacks: Mapping[str, Attack], searches: int = 8,
                 warm: bool = False) -> dict[str, Attack]:
    """The minimum question asked of budget attacks: ``search <name>``, or ``warm search <name>``."""
    return {f'{"warm " if warm else ""}search {name}': BudgetSearch(attack, searches, warm)
            for name, attack in attacks.items()}


def foreign_suite(steps: int) -> dict[str, Attack]:
    """Minimum attacks of adversarial-library, which has to be installed (make env-bench)."""
    sigma_zero, pdpgd = dict(num_steps=steps), dict(norm=0, num_steps=steps)
    return {
        'adv-lib sigma_zero': ForeignAttack('adv_lib.attacks.sigma_zero', sigma_zero, batched=True),
        'adv-lib vfga': ForeignAttack('adv_lib.attacks.vfga', dict(targeted=False)),
        'adv-lib pdpgd': ForeignAttack('adv_lib.attacks.pdpgd', pdpgd, batched=True),
    }


def cost_suite(steps: int) -> dict[str, Attack]:
    """One of each core, all of whose iterations see the whole batch; by class."""
    patches = budget_suite(3, steps, steps, early_stop=False, kernel=Patch(3, 3))
    every = patches | budget_suite(3, steps, steps, early_stop=False) | minimum_suite('cost', steps)
    return pick(every, 'SigmaZero', 'Descent', 'ASLO', 'WIFGSM', 'GSE', 'SparsePGD', 'SwapPGD',
                'ScreenedCorners', 'StructuredSparsePGD', 'PGD0', 'SparseRS', 'Relay')


def pick(attacks: Mapping[str, Attack], *names: str) -> dict[str, Attack]:
    """Some attacks of a suite, in the order of the names."""
    return {name: attacks[name] for name in names}
