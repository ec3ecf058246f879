"""The noise guard: drop likely label errors before selecting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lc_engine._util.grouped import rank_within_groups, smallest_per_group
from lc_engine.selection.columns import column_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.columns import Scores
    from lc_engine.selection.eligible import EligibleRows

WRONG_ANSWERS: Final = (
    "of instruction data, answers to other questions are among the hardest rows, and training on "
    "them is worse than on random rows: look at them first (suspicious.csv of prune), or set a "
    "noise guard"
)


def check_guard(share: float) -> None:
    """Raise ValueError if a share to set aside is out of range."""
    if not 0.0 <= share < 1.0:
        raise ValueError(f"noise_guard must lie in [0, 1), got {share}")


def drop_suspected_noise(
    rows: EligibleRows, counts: NDArray[np.int64], share: float
) -> EligibleRows:
    """Return the rows without the most doubtful of each group.

    Doubtful is a low lc + lc_std, which is high where at least some sub-models are confident in the
    label: a hard but learnable row has a large lc_std, a wrong label low confidence under every
    sub-model. Of instruction data that have `ifd`, doubtful is a high sum of the ranks of `ifd` and
    `loss` within the group: answers to another question have a high ifd, broken texts a high loss.

    Args:
        rows: the eligible rows.
        counts: (G,) rows that will be kept of each group.
        share: share of each group to drop, in [0, 1); less where the budget needs the rows.

    Raises:
        ValueError: a share out of range, or no column "ifd", and "lc" or "lc_std" missing too.
    """
    check_guard(share)
    if share == 0.0:
        return rows
    sizes = rows.group_sizes
    doubt = _doubt_of_answers(rows, sizes) if has_ifd(rows.scores) else _doubt_of_labels(rows)
    remaining = np.maximum(counts, sizes - np.floor(share * sizes).astype(np.int64))
    return rows.take(np.sort(smallest_per_group(doubt, rows.groups, remaining)))


def has_ifd(scores: Scores) -> bool:
    """Return whether scores are of instruction data, each answer with and without its prompt."""
    return "ifd" in column_names(scores)


def _doubt_of_labels(rows: EligibleRows) -> NDArray[np.float32]:
    return -(rows.score("lc") + rows.score("lc_std"))


def _doubt_of_answers(rows: EligibleRows, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum of both ranks, so that a group's n rows have sums from 0 to 2n − 2."""
    ifd, loss = (
        rank_within_groups(rows.hardness(name), rows.groups, sizes) for name in ("ifd", "loss")
    )
    return ifd + loss
