"""FlexRand: random inside an easy and a hard pool, with the border between them to be chosen.

"Exploring Learning Complexity for Efficient Downstream Dataset Pruning" (arXiv 2402.05356 v2/v3)
and its released code. Rows of a group are sorted by hardness; the first γ·n are the easy pool, the
others the hard one. The smaller pool gives half of what is kept, or all it has if that is less;
the larger gives the rest. γ = 0 and γ = 1 leave one pool: the random draw per group, and with the
same seed the very rows that the strategy "random" draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection import grouped as draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.eligible import Rows


def flexrand(
    rows: Rows, counts: NDArray[np.int64], rng: np.random.Generator, *, score: str, gamma: float
) -> NDArray[np.intp]:
    """Draw FlexRand's subset: counts[g] rows of each group g.

    Args:
        rows: the rows to choose from.
        counts: (G,) rows to keep of each group.
        rng: source of the draw.
        score: "loss" or "lc", the column that says what is hard.
        gamma: γ in [0, 1], the share of a group that is its easy pool.

    Returns:
        Indices into `rows`, Σ counts of them.
    """
    return draw_pools(hardness(rows, score), rows.groups, rows.sizes, counts, gamma, rng)


def draw_pools(
    hard: NDArray[np.float32],
    groups: NDArray[np.intp],
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
    gamma: float,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Draw from the pools, given how hard each row is (N,): see `flexrand`."""
    return draw_ranked(draw.ranks(hard, groups, sizes), groups, sizes, counts, gamma, rng)


def draw_ranked(
    rank: NDArray[np.int64],
    groups: NDArray[np.intp],
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
    gamma: float,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Draw from the pools, given each row's place in its group (N,), 0 for the easiest."""
    # Ties from a stream of their own: with one pool, what is drawn is then what "random" draws.
    pool, easy = split(sizes, counts, gamma, rng.spawn(1)[0])
    cells = pool_cells(rank, groups, pool)
    return draw.uniform(cells, np.stack([easy, counts - easy], 1).reshape(-1), rng)


def pool_cells(
    rank: NDArray[np.int64], groups: NDArray[np.intp], pool: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Number the pools: (N,) 2·group for a row of the easy pool, 2·group + 1 for a hard one."""
    return 2 * groups + (rank >= pool[groups])


def split(
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
    gamma: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split each group's rows and its budget into an easy and a hard part, in whole rows.

    The easy part is rounded up or down so that its sum over the groups is the nearest integer to
    the exact one (largest remainders, ties drawn): rounding each group by itself would leave a
    budget of one row per class always hard, or always easy.

    Args:
        sizes: (G,) n, rows of each group.
        counts: (G,) k, rows to keep of each.
        gamma: γ in [0, 1].
        rng: draws which of equal remainders are rounded up.

    Returns:
        (G,) rows in the easy pool and (G,) rows to draw from it.
    """
    pool, exact = split_exactly(sizes, counts, gamma)
    easy = np.floor(exact).astype(np.int64)
    remainder = exact - easy
    up = round(float(remainder.sum()))
    # Rounded, so that remainders equal but for the last bits of a float are a tie.
    chosen = np.lexsort((rng.random(len(easy)), -np.round(remainder, 9)))[:up]
    easy[chosen] += 1
    return pool, easy


def split_exactly(
    sizes: NDArray[np.int64], counts: NDArray[np.int64], gamma: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Split as `split` does, the budget's easy part before it is rounded.

    It is min(γ·n, k/2) for γ ≤ ½ and k − min((1 − γ)·n, k/2) above, as far as the pools allow.

    Returns:
        (G,) rows in the easy pool and (G,) the expected number of rows to draw from it.
    """
    pool = np.rint(gamma * sizes).astype(np.int64)
    if 0.0 < gamma < 1.0:  # a pool that exists has a row wherever there are two to share
        least = np.minimum(1, sizes // 2)
        pool = np.clip(pool, least, sizes - least)
    if gamma <= 0.5:
        easy = np.minimum(gamma * sizes, counts / 2)
    else:
        easy = counts - np.minimum((1 - gamma) * sizes, counts / 2)
    return pool, np.clip(easy, np.maximum(0, counts - (sizes - pool)), np.minimum(pool, counts))


def hardness(rows: Rows, score: str) -> NDArray[np.float32]:
    """Give how hard each row is (N,), high = hard, from the column "loss" or "lc".

    Raises:
        ValueError: another column.
    """
    if score == "loss":
        return rows.numbers("loss")
    if score == "lc":
        return -rows.numbers("lc")
    raise ValueError(f'score must be "loss" (high = hard) or "lc" (high = easy), got {score!r}')
