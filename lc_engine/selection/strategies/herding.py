"""Herding: rows whose running mean follows the mean of their group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection.strategies.candidate_blocks import candidate_blocks, log_blocks
from lc_engine.selection.strategies.per_group import mean_of_rows, per_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem


def herding(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep rows greedily so that the mean of those kept stays closest to the group mean.

    Welling, "Herding Dynamical Weights to Learn", ICML 2009, as used for exemplars by Rebuffi et
    al., "iCaRL", CVPR 2017. In a large group each step reads one block of the candidates (see
    `candidate_blocks`); the target and the running mean are those of the whole group.
    """
    log_blocks(problem, "herding")
    return per_group(problem, lambda members, count: _herd(features, members, count))


def _herd(features: NDArray[np.float32], members: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return which of the rows `members` (n,) herding keeps: indices (count,)."""
    target = mean_of_rows(features, members)
    total = np.zeros_like(target)
    kept: list[int] = []
    for block in candidate_blocks(len(members), count):
        rows = features[members[block.start : block.stop]]
        squares = np.einsum("nd,nd->n", rows, rows)
        for step in range(len(kept) + 1, len(kept) + block.budget + 1):
            # ‖target − (total + x)/step‖² over x, up to factors and terms that do not depend on x.
            gap = squares - 2 * rows @ (step * target - total).astype(np.float32)
            best = int(gap.argmin())
            squares[best] = np.inf  # never again
            total += rows[best]
            kept.append(block.start + best)
    return np.array(kept, dtype=np.intp)
