"""What every strategy gets: the eligible rows and how many of them to keep of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lc_engine.selection.budget import allocate
from lc_engine.selection.eligible import read_eligible_rows
from lc_engine.selection.noise_guard import drop_suspected_noise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lc_engine.selection.budget import Bound
    from lc_engine.selection.columns import ScoresLike
    from lc_engine.selection.eligible import EligibleRows


class Problem(NamedTuple):
    """Keep counts[g] rows of each group g.

    Attributes:
        rows: N rows in G groups.
        counts: (G,) rows to keep of each group.
    """

    rows: EligibleRows
    counts: NDArray[np.int64]

    def members(self) -> Iterator[tuple[NDArray[np.intp], int]]:
        """Yield the row indices of each group that keeps any, and the number that it keeps."""
        order = np.argsort(self.rows.groups, kind="stable")
        by_group = np.split(order, np.cumsum(self.rows.group_sizes)[:-1])
        for members, count in zip(by_group, self.counts.tolist(), strict=True):
            if count:
                yield members, count


def prepare(
    scores: ScoresLike, keep: float, *, by: str | None, floor: Bound, cap: Bound, noise_guard: float
) -> Problem:
    """Return the eligible rows, without suspected noise, and the budget of each group.

    Args:
        scores: as in `select`.
        keep: a float in (0, 1] is a fraction, an int a count.
        by: the column whose values share the budget, or None for one group.
        floor: least number kept per group.
        cap: greatest number kept per group.
        noise_guard: largest share of each group to drop first, in [0, 1).

    Raises:
        ValueError: naming the invalid argument, column or row.
    """
    rows = read_eligible_rows(scores, by)
    counts = allocate(rows.group_sizes, rows.group_names, keep, floor=floor, cap=cap)
    return Problem(drop_suspected_noise(rows, counts, noise_guard), counts)
