"""Rows that are kept, or left out, whatever their score."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Exceptions:
    """Ids that someone named.

    Attributes:
        always: kept; they count towards the budget.
        never: left out before the budget is shared.
    """

    always: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.str_))
    never: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.str_))

    def marks(self, ids: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which of the ids (N,) are always and which are never kept.

        Raises:
            ValueError: an id that no row with a score has, or one that is in both lists.
        """
        always, never = (_marks(name, getattr(self, name), ids) for name in ("always", "never"))
        both = always & never
        if both.any():
            raise ValueError(
                f"id {ids[both].tolist()[0]!r} is to be kept always and never: take one"
            )
        return always, never


NO_EXCEPTIONS: Final = Exceptions()


def _marks(name: str, named: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.bool_]:
    if not len(named):
        return np.zeros(len(ids), bool)
    known, wanted = ids.astype(np.str_), np.asarray(named).astype(np.str_)
    lost = wanted[~np.isin(wanted, known)]
    if len(lost):
        more = ", …" if len(lost) > _SHOWN else ""
        raise ValueError(
            f"{name}_keep names {len(lost)} ids that no row with a score has: "
            f"{', '.join(lost[:_SHOWN].tolist())}{more}"
        )
    marked: NDArray[np.bool_] = np.isin(known, wanted)
    return marked
