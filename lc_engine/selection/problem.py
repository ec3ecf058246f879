"""What every strategy gets: the eligible rows and how many of them to keep of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lc_engine.selection.budget import allocate, bound_per_group, resolve_keep, with_shares
from lc_engine.selection.eligible import read_eligible_rows
from lc_engine.selection.exceptions import NO_EXCEPTIONS, Exceptions
from lc_engine.selection.noise_guard import drop_suspected_noise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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


class LeftOut(NamedTuple):
    """Rows that a problem is without.

    Attributes:
        eligible: all rows that might be kept, the following among them.
        always: rows that are kept in any case.
        never: rows that are not kept in any case.
        suspected: (s,) numbers in the table of rows that the noise guard set aside, ascending.
    """

    eligible: EligibleRows
    always: EligibleRows
    never: EligibleRows
    suspected: NDArray[np.intp]


def prepare(
    scores: ScoresLike, keep: float, *, by: str | None, floor: Bound, cap: Bound, noise_guard: float
) -> Problem:
    """Return the rows to choose among and the budget of each group; see `divide`."""
    return divide(scores, keep, by=by, floor=floor, cap=cap, noise_guard=noise_guard)[0]


def divide(
    scores: ScoresLike,
    keep: float,
    *,
    by: str | None,
    floor: Bound,
    cap: Bound,
    noise_guard: float,
    balance: float = 1.0,
    shares: Mapping[Any, float] | None = None,
    exceptions: Exceptions = NO_EXCEPTIONS,
) -> tuple[Problem, LeftOut]:
    """Return the rows to choose among, the budget of each group, and the rows left out.

    Args:
        scores: as in `select`.
        keep: a float in (0, 1] is a fraction, an int a count.
        by: the column whose values share the budget, or None for one group.
        floor: least number kept per group.
        cap: greatest number kept per group.
        noise_guard: largest share of each group to drop first, in [0, 1).
        balance: α of `allocate`.
        shares: {group: share of the budget}; the other groups share the rest.
        exceptions: rows that are kept, and count towards the budget, or left out.

    Raises:
        ValueError: naming the invalid argument, column or row.
    """
    eligible = read_eligible_rows(scores, by)
    always, never = exceptions.marks(eligible.ids)
    rows = eligible.take(~never) if never.any() else eligible
    named = np.bincount(eligible.groups[always], minlength=len(eligible.group_names))
    sizes, names = rows.group_sizes, eligible.group_names
    if never.any() and isinstance(keep, int | np.integer) and keep > len(rows):
        raise ValueError(
            f"keep = {keep} is a count and must lie in [1, {len(rows)}]: never_keep names "
            f'{never.sum()} of the {len(eligible)} rows with status "ok"'
        )
    if shares:
        budget = resolve_keep(keep, int(sizes.sum()))
        floor, cap = with_shares(shares, budget, sizes, names, floor, cap)
    if named.any():
        budget = resolve_keep(keep, int(sizes.sum()))
        if named.sum() > budget:
            raise ValueError(
                f"always_keep names {named.sum()} rows, but keep asks for {budget}: give more"
            )
        least = bound_per_group("floor", floor, names)
        low = np.minimum(sizes, 1 if least is None else least)
        floor = dict(zip(names.tolist(), np.maximum(low, named).tolist(), strict=True))
    counts = allocate(sizes, names, keep, floor=floor, cap=cap, balance=balance) - named
    free = rows.take(~always[~never]) if always.any() else rows
    cleared = drop_suspected_noise(free, counts, noise_guard)
    suspected = np.empty(0, np.intp)
    if len(cleared) < len(free):
        suspected = np.setdiff1d(free.indices, cleared.indices)
    left = LeftOut(eligible, eligible.take(always), eligible.take(never), suspected)
    return Problem(cleared, counts), left
