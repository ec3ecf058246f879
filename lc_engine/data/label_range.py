"""Labels that a linear head has no class for, and what they say about the labels of all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lc_engine.data.batch import NO_LABEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHOWN: Final = 5
_REMEDY: Final = "np.unique(labels, return_inverse=True)[1] numbers them from 0 in ascending order"


def check_labels_begin_at_0(labels: NDArray[np.integer], classes: int) -> None:
    """Refuse labels that run from 1 to the number of classes: each would mean another class.

    Args:
        labels: (N,), −1 for none.
        classes: C of the head, whose labels are 0 … C − 1.

    Raises:
        ValueError: the least label is 1 and the greatest C.
    """
    greatest = int(labels.max(initial=NO_LABEL))
    if greatest == classes and labels[labels != NO_LABEL].min() == 1:
        raise ValueError(
            f"labels: they are 1…{greatest}, but the {classes} classes of the head are "
            f"0…{classes - 1}, so each row would be scored against another class than its own: "
            f"pass labels - 1 ({_REMEDY}); if {greatest} means no class, make it {NO_LABEL}"
        )


def labels_outside(labels: NDArray[np.integer], classes: int) -> str | None:
    """Return a warning of the labels that the head has no class for; None if it has all.

    Args:
        labels: (N,), −1 for none.
        classes: C of the head.
    """
    known = labels[labels != NO_LABEL]
    outside = known[(known < 0) | (known >= classes)]
    if not len(outside):
        return None
    values = np.unique(outside).tolist()
    shown = ", ".join(map(str, values[:_SHOWN])) + (", …" if len(values) > _SHOWN else "")
    wrong = (
        "all other rows were scored against another class than their own"
        if not (known == 0).any()
        else "rows of the other labels may have been scored against the wrong class"
    )
    return (
        f"{len(outside):,} of {len(labels):,} rows have a label without a class in the head "
        f"({shown}): the labels are {known.min()}…{known.max()}, the {classes} classes of the head "
        f"0…{classes - 1}. If the labels begin at 1, or do not number the rows of the head's "
        f"weight, {wrong}: correct the labels ({_REMEDY}), and score again"
    )
