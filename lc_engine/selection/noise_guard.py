"""The noise guard: set aside rows that look like wrong labels before anything is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection import grouped as draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.eligible import Rows


def set_aside(rows: Rows, counts: NDArray[np.int64], share: float) -> Rows:
    """Drop the rows of each group that no sub-model believes in: hard, and stable over the path.

    Rows are ordered by lc + lc_std, the confidence that the kinder half of the path has in the
    label. A hard but learnable row is believed by some sub-models (large lc_std); a wrong label
    by none.

    Args:
        rows: the rows to choose from.
        counts: (G,) rows that will be kept of each group.
        share: largest part of each group to drop, in [0, 1); less where the budget needs the rows.

    Returns:
        The rows that stay.

    Raises:
        ValueError: a share out of range, or no column "lc" or "lc_std".
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(f"noise_guard must lie in [0, 1), got {share}")
    if share == 0.0:
        return rows
    belief = rows.numbers("lc") + rows.numbers("lc_std")
    dropped = np.floor(share * rows.sizes).astype(np.int64)
    stay = np.maximum(counts, rows.sizes - dropped)
    return rows.take(np.sort(draw.first(-belief, rows.groups, stay)))
