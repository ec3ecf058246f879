"""k-center greedy: rows far from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection.strategies.candidate_blocks import candidate_blocks, log_blocks
from lc_engine.selection.strategies.per_group import mean_of_rows, per_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem


def kcenter(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep rows greedily, each the farthest from those kept so far: k-center greedy.

    Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
    ICLR 2018, algorithm 1, per group, from a first row drawn at random. In a large group the
    distances are those within one block of the candidates (see `candidate_blocks`).
    """

    def choose(members: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        center = mean_of_rows(features, members).astype(np.float32)
        return np.concatenate(
            [
                block.start
                + _k_center(features[members[block.start : block.stop]] - center, block.budget, rng)
                for block in candidate_blocks(len(members), count)
            ]
        )

    log_blocks(problem, "kcenter")
    return per_group(problem, choose)


def _k_center(
    centered: NDArray[np.float32], count: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return which of n rows (n, D) k-center greedy keeps: indices (count,)."""
    squares = np.einsum("nd,nd->n", centered, centered)
    nearest = np.full(len(centered), np.inf, dtype=np.float32)
    kept = [int(rng.integers(len(centered)))]
    while len(kept) < count:
        latest = kept[-1]
        distance = squares + squares[latest] - 2 * centered @ centered[latest]
        np.minimum(nearest, distance, out=nearest)
        nearest[latest] = -np.inf  # never again
        kept.append(int(nearest.argmax()))
    return np.array(kept, dtype=np.intp)
