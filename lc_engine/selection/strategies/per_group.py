"""What strategies in feature space share: one choice per group, and means in flat memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem

CHUNK = 16_384  # rows copied at a time


def per_group(
    problem: Problem, choose: Callable[[NDArray[np.intp], int], NDArray[np.intp]]
) -> NDArray[np.intp]:
    """Return the rows that are kept, given which of a group's members are.

    Args:
        problem: rows and budgets.
        choose: (row indices (n,) of a group, number to keep) -> indices into them.
    """
    return np.concatenate([members[choose(members, k)] for members, k in problem.members()])


def mean_of_rows(features: NDArray[np.float32], members: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the mean (D,) of the rows `members` of features (N, D)."""
    total = np.zeros(features.shape[1])
    for _, rows in chunks(features, members):
        total += rows.sum(0, dtype=np.float64)
    return total / len(members)


def chunks(
    features: NDArray[np.float32], members: NDArray[np.intp]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield slices of `members` and the features (at most 16,384, D) of the rows in them."""
    for start in range(0, len(members), CHUNK):
        part = slice(start, start + CHUNK)
        yield part, features[members[part]]
