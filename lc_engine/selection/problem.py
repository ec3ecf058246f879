"""What every selection starts with: the rows to choose from, and how many to keep of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.selection.budget import apportion, bound_per_group, resolve_keep
from lc_engine.selection.eligible import read_rows
from lc_engine.selection.noise_guard import set_aside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lc_engine.selection.budget import Bound
    from lc_engine.selection.eligible import Rows, Scores


def prepare(
    scores: Scores, keep: float, *, by: str | None, floor: Bound, cap: Bound, noise_guard: float
) -> tuple[Rows, NDArray[np.int64]]:
    """Read the rows, share the budget over their groups and set aside what the guard distrusts.

    Args:
        scores: a ScoreTable or a mapping of columns.
        keep: a float in (0, 1] is a fraction, an int a count.
        by: the column whose values share the budget, or None for one group.
        floor: least number kept per group.
        cap: greatest number kept per group.
        noise_guard: largest share of each group to set aside, in [0, 1).

    Returns:
        The rows that may be kept, and the number (G,) to keep of each group.

    Raises:
        ValueError: naming the argument, column or row that does not fit.
    """
    rows = read_rows(scores, by)
    counts = apportion(
        rows.sizes,
        resolve_keep(keep, len(rows)),
        floor=bound_per_group("floor", floor, rows.names),
        cap=bound_per_group("cap", cap, rows.names),
    )
    return set_aside(rows, counts, noise_guard), counts
