"""Batches of rows in order, each row with its status; and sources of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from torch import Tensor

OK: Final = "ok"
UNREADABLE: Final = "unreadable"
BAD_LABEL: Final = "bad_label"
NON_FINITE: Final = "non_finite"
FAILED: Final = "failed"

NO_LABEL: Final = -1
HOLDS_NON_FINITE: Final = "the input has NaN or infinite values"
NON_FINITE_OUTPUT: Final = "the model's output is not finite for this row"


@dataclass(frozen=True, eq=False)
class Batch:
    """B consecutive rows of a source, including those that cannot be scored.

    Attributes:
        ids: (B,) int64 row indices, or strings (a path relative to the folder).
        inputs: (M, ...) inputs of the rows whose status is "ok", in order; M ≤ B. `Fields` where
            they have names, a list of M `Tokens` for conversations.
        labels: (B,) int64; −1 where the row has no usable label.
        status: B of "ok", "unreadable", "bad_label", "non_finite"; a `SparseTexts` is cheapest.
        detail: B sentences that say what is wrong; "" where the status is "ok".
        targets: M things that rows are compared with where that is no label; None where it is one.
        sources: (B,) names of the rows' sources, where there are several; else None.
    """

    ids: np.ndarray
    inputs: Any
    labels: Tensor
    status: Sequence[str]
    detail: Sequence[str]
    targets: Sequence[Any] | None = None
    sources: np.ndarray | None = None

    def __len__(self) -> int:
        """Return B, the number of rows, scorable or not."""
        return len(self.status)

    def rows(self, start: int, stop: int) -> Batch:
        """Return rows [start, stop) as a batch."""
        if (start, stop) == (0, len(self)):
            return self
        before = sum(status == OK for status in self.status[:start])
        inside = sum(status == OK for status in self.status[start:stop])
        return Batch(
            ids=self.ids[start:stop],
            inputs=self.inputs[before : before + inside],
            labels=self.labels[start:stop],
            status=self.status[start:stop],
            detail=self.detail[start:stop],
            targets=None if self.targets is None else self.targets[before : before + inside],
            sources=None if self.sources is None else self.sources[start:stop],
        )


@runtime_checkable
class Source(Protocol):
    """A labelled data set of known length, read by ranges of rows.

    A row's index, id, input and status do not depend on how the rows are cut into batches.
    """

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, in the order of the labels; None if unknown."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def digest(self) -> str:
        """Return a fingerprint of the data: it changes when they do."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return a description of the data, as JSON, for the manifest of a run."""
        ...

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order, ahead of the consumer.

        Raises:
            ValueError: a batch size below 1, or a range outside the source.
        """
        ...


def row_ranges(rows: int, batch_size: int, start: int, stop: int | None) -> list[range]:
    """Return [start, stop) of a source of `rows` rows, cut into ranges of at most `batch_size`.

    Raises:
        ValueError: a batch size below 1, or a range outside the source.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    stop = rows if stop is None else stop
    if not 0 <= start <= stop <= rows:
        raise ValueError(f"rows [{start}, {stop}) lie outside the {rows} rows of the source")
    return [range(i, min(i + batch_size, stop)) for i in range(start, stop, batch_size)]
