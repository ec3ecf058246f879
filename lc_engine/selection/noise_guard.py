"""The noise guard: drop likely label errors before selecting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine._util.grouped import smallest_per_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.eligible import EligibleRows


def drop_suspected_noise(
    rows: EligibleRows, counts: NDArray[np.int64], share: float
) -> EligibleRows:
    """Return the rows without those of lowest lc + lc_std in each group.

    lc + lc_std is high where at least some sub-models are confident in the label: a hard but
    learnable row has a large lc_std, a wrong label low confidence under every sub-model.

    Args:
        rows: the eligible rows.
        counts: (G,) rows that will be kept of each group.
        share: share of each group to drop, in [0, 1); less where the budget needs the rows.

    Raises:
        ValueError: a share out of range, or no column "lc" or "lc_std".
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(f"noise_guard must lie in [0, 1), got {share}")
    if share == 0.0:
        return rows
    confidence = rows.score("lc") + rows.score("lc_std")
    dropped = np.floor(share * rows.group_sizes).astype(np.int64)
    remaining = np.maximum(counts, rows.group_sizes - dropped)
    return rows.take(np.sort(smallest_per_group(-confidence, rows.groups, remaining)))
