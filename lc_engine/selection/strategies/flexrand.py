"""FlexRand: random draws from an easy and a hard pool, split at an adjustable border.

"Exploring Learning Complexity for Efficient Downstream Dataset Pruning" (arXiv 2402.05356 v2/v3)
and its released code. The rows of a group are sorted by hardness; the first γ·n are the easy pool,
the others the hard pool. The smaller pool supplies half of the rows kept, or all that it has; the
larger supplies the rest. With γ = 0 or γ = 1 there is one pool, and the rows are those that the
strategy "random" draws with the same seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.grouped import rank_within_groups, sample_per_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem


def flexrand(
    problem: Problem, rng: np.random.Generator, *, score: str, gamma: float
) -> NDArray[np.intp]:
    """Keep half from the easy pool and half from the hard one, random inside each.

    Args:
        problem: rows and budgets.
        rng: source of the draw.
        score: the column of numbers that ranks rows; its direction is in the table's metadata.
        gamma: γ in [0, 1], the easy pool's share of a group.

    Returns:
        Indices into the rows, Σ counts of them.
    """
    rows, counts = problem
    rank = rank_within_groups(rows.hardness(score), rows.groups, rows.group_sizes)
    return sample_pools(rank, rows.groups, rows.group_sizes, counts, gamma, rng)


def sample_pools(
    rank: NDArray[np.int64],
    groups: NDArray[np.intp],
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
    gamma: float,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Return rows drawn from the pools, given each row's rank in its group (N,), 0 the easiest."""
    # Ties have a stream of their own, so that one pool is drawn from as by "random".
    easy = easy_counts(sizes, counts, gamma, rng.spawn(1)[0])
    pools = pool_of_rows(rank, groups, easy_pool_sizes(sizes, gamma))
    return sample_per_group(pools, per_pool(easy, counts), rng)


def pool_of_rows(
    rank: NDArray[np.int64], groups: NDArray[np.intp], easy_sizes: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return the pool of each row (N,): 2·group for the easy pool, 2·group + 1 for the hard one."""
    return 2 * groups + (rank >= easy_sizes[groups])


def per_pool(easy: NDArray[Any], total: NDArray[Any]) -> NDArray[Any]:
    """Return a number per pool (2G,), numbered as by `pool_of_rows`, from easy and total (G,)."""
    return np.stack([easy, total - easy], 1).reshape(-1)


def easy_pool_sizes(sizes: NDArray[np.int64], gamma: float) -> NDArray[np.int64]:
    """Return the rows (G,) in the easy pool of each group of n = sizes (G,) rows: about γ·n."""
    pool: NDArray[np.int64] = np.rint(gamma * sizes).astype(np.int64)
    if 0.0 < gamma < 1.0:  # neither pool is empty in a group of two rows or more
        least = np.minimum(1, sizes // 2)
        pool = np.clip(pool, least, sizes - least)
    return pool


def easy_counts(
    sizes: NDArray[np.int64], counts: NDArray[np.int64], gamma: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the rows (G,) to draw from the easy pool of each group.

    The expected counts are rounded so that their sum is the nearest integer to the exact sum
    (largest remainders, ties drawn): rounded by itself, a budget of one row per class would always
    be hard, or always easy.

    Args:
        sizes: (G,) n, rows of each group.
        counts: (G,) k, rows to keep of each.
        gamma: γ in [0, 1].
        rng: decides which of equal remainders are rounded up.
    """
    exact = expected_easy_counts(sizes, counts, gamma)
    easy = np.floor(exact).astype(np.int64)
    remainder = exact - easy
    up = round(float(remainder.sum()))
    # Rounded to 9 digits, so that remainders equal up to float error are ties.
    chosen = np.lexsort((rng.random(len(easy)), -np.round(remainder, 9)))[:up]
    easy[chosen] += 1
    return easy


def expected_easy_counts(
    sizes: NDArray[np.int64], counts: NDArray[np.int64], gamma: float
) -> NDArray[np.float64]:
    """Return the expected number (G,) of rows to draw from the easy pool.

    It is min(γ·n, k/2) for γ ≤ ½ and k − min((1 − γ)·n, k/2) above, as far as the pools allow.
    """
    pool = easy_pool_sizes(sizes, gamma)
    if gamma <= 0.5:
        easy = np.minimum(gamma * sizes, counts / 2)
    else:
        easy = counts - np.minimum((1 - gamma) * sizes, counts / 2)
    least, most = np.maximum(0, counts - (sizes - pool)), np.minimum(pool, counts)
    return np.asarray(np.clip(easy, least, most))
