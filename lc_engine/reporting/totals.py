"""Sums over rows by class, by source and by length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Totals:
    """Sums over the scored rows of one group; `kept` (S,) counts those of each selection."""

    rows: int = 0
    lc: float = 0.0
    lc_std: float = 0.0
    never: int = 0
    kept: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def add_groups(
    groups: dict[Any, Totals],
    keys: NDArray[Any],
    lc: NDArray[np.floating],
    lc_std: NDArray[np.floating],
    never: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> None:
    """Add the rows of a piece to the totals of their groups.

    Args:
        groups: totals by key, added to.
        keys: (M,) the group of each row.
        lc: (M,), like `lc_std` and `never`.
        lc_std: see `lc`.
        never: see `lc`.
        kept: (S, M) whether each selection keeps each row.
    """
    names, where = np.unique(keys, return_inverse=True)
    sums = [
        np.bincount(where, values, len(names))
        for values in (np.ones(len(keys)), lc, lc_std, never, *kept)
    ]
    for at, name in enumerate(names.tolist()):
        total = groups.setdefault(name, Totals(kept=np.zeros(len(kept), np.int64)))
        total.rows += int(sums[0][at])
        total.lc += float(sums[1][at])
        total.lc_std += float(sums[2][at])
        total.never += int(sums[3][at])
        total.kept += np.array([part[at] for part in sums[4:]], np.int64)


def length_group(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Return the group of each length: g for 2^g to 2^(g+1) − 1 tokens, −1 for none."""
    return np.asarray(np.frexp(np.maximum(np.asarray(counts, np.float64), 0))[1] - 1, np.int64)


def length_name(group: int) -> str:
    """Return what a group of lengths is called."""
    if group < 1:
        return "1 token" if group == 0 else "none"
    return f"{1 << group:,} to {(2 << group) - 1:,} tokens"
