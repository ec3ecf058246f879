"""Herding: rows whose running mean follows the mean of their group, of all or of confirmed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.data.batch import NO_LABEL
from lc_engine.selection.linear_probe import leave_one_out_margins, principal_components
from lc_engine.selection.strategies.candidate_blocks import candidate_blocks, log_blocks
from lc_engine.selection.strategies.per_group import mean_of_rows, per_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem

MARGIN_WIDTH = 128  # principal components that margins are computed from


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


def guarded_herding(
    problem: Problem,
    rng: np.random.Generator,
    *,
    features: NDArray[np.float32],
    guard: float = 0.2,
) -> NDArray[np.intp]:
    """Keep rows as herding does, among those whose label a classifier of the other rows confirms.

    First the rows of smallest leave-one-out margin of a ridge classifier are set aside: wrong
    labels, and rows that lie among another class. Of a single class none is, and no row without a
    label.

    Args:
        problem: rows and budgets.
        rng: draws the rows that principal components are taken from.
        features: (N, D) of the rows.
        guard: share of each group to set aside, in [0, 1); less where the budget needs the rows.

    Raises:
        ValueError: guard out of range, or no label column.
    """
    if not 0.0 <= guard < 1.0:
        raise ValueError(f"guard must lie in [0, 1), got {guard}")
    labels = problem.rows.labels()
    labelled = np.flatnonzero(labels != NO_LABEL)
    names, classes = np.unique(labels[labelled], return_inverse=True)
    if len(names) < 2:
        return herding(problem, rng, features=features)
    log_blocks(problem, "guarded_herding")
    narrow = principal_components(features, MARGIN_WIDTH, rng)
    margins = np.full(len(labels), np.inf)
    known = narrow if len(labelled) == len(labels) else narrow[labelled]
    margins[labelled] = leave_one_out_margins(known, classes, len(names))

    def choose(members: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        doubtful = int(guard * np.isfinite(margins[members]).sum())
        left = max(count, len(members) - doubtful)
        confirmed = np.sort(np.argsort(-margins[members], kind="stable")[:left])
        kept: NDArray[np.intp] = confirmed[_herd(features, members[confirmed], count)]
        return kept

    return per_group(problem, choose)


def _herd(features: NDArray[np.float32], members: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return which of the rows `members` (n,) herding keeps: indices (count,)."""
    mean = mean_of_rows(features, members)
    origin = mean.astype(np.float32)  # squares of rows far from zero would lose digits
    target = mean - origin
    total = np.zeros_like(target)
    kept: list[int] = []
    for block in candidate_blocks(len(members), count):
        rows = features[members[block.start : block.stop]]
        rows -= origin
        squares = np.einsum("nd,nd->n", rows, rows)
        for step in range(len(kept) + 1, len(kept) + block.budget + 1):
            # ‖target − (total + x)/step‖² over x, up to factors and terms that do not depend on x.
            gap = squares - 2 * rows @ (step * target - total).astype(np.float32)
            best = int(gap.argmin())
            squares[best] = np.inf  # never again
            total += rows[best]
            kept.append(block.start + best)
    return np.array(kept, dtype=np.intp)
