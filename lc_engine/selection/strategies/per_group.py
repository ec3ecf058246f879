"""What strategies in feature space share: one choice per group, and means in flat memory."""

from __future__ import annotations

import functools
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

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
    with _one_thread():
        return np.concatenate([members[choose(members, k)] for members, k in problem.members()])


def _one_thread() -> AbstractContextManager[object]:
    """Limit products and k-means to one thread: sums have one order, and small ones do not wait."""
    if find_spec("threadpoolctl") is None:  # it comes with scikit-learn, so there is no k-means
        return nullcontext()
    limits: AbstractContextManager[object] = _libraries("sklearn" in sys.modules).limit(limits=1)
    return limits


@functools.cache
def _libraries(with_k_means: bool) -> Any:
    """Return the threaded libraries; looking for them takes as long as a small choice."""
    return require("threadpoolctl", "select").ThreadpoolController()


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
