"""Rows that a model fails on: found by bisection, while the others of their batch go through."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from lc_engine.data.batch import OK
from lc_engine.data.faults import Fault, fault_of
from lc_engine.data.fields import Inputs
from lc_engine.data.wrap.subset import Subset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.data.batch import Batch, Source

_Result = TypeVar("_Result")

# Rows that are tried one by one before an error is taken as that of every row.
_TRIED = 16


class Isolation(Generic[_Result]):
    """Calls a model with batches; where that raises, the rows at fault are isolated.

    An error is a row's if another row goes through after it: an error of every row, as of a model
    that does not fit the data or a device that is gone, is raised.

    Args:
        call: from a batch to a result.
        source: where the batches come from.

    Attributes:
        example: result of a row that went through; None as long as none has failed.
    """

    def __init__(self, call: Callable[[Batch], _Result], source: Source) -> None:
        self._call, self._source = call, source
        self._good: Batch | None = None
        self.example: _Result | None = None

    def each(self, batch: Batch) -> Iterator[tuple[Batch, _Result | Exception]]:
        """Yield the pieces of a batch in order, each with its result; a failed row with its error.

        Raises:
            Exception: that of the batch, if it is not the fault of some rows.
        """
        try:
            found = self._call(batch)
        except Exception as error:
            self._check_others(batch, error)
            pieces = list(self._halves(batch))
            self._check_others(batch, error)  # a device may have gone meanwhile
            yield from pieces
        else:
            self._remember(batch)
            yield batch, found

    def _halves(self, batch: Batch) -> Iterator[tuple[Batch, _Result | Exception]]:
        middle = len(batch) // 2
        for start, stop in ((0, middle), (middle, len(batch))) if middle else ((0, 1),):
            piece = batch.rows(start, stop)
            try:
                found = self._call(piece)
            except Exception as error:
                if fault_of(error) is Fault.RUN:
                    raise
                if len(piece) == 1:
                    yield piece, error
                else:
                    yield from self._halves(piece)
            else:
                yield piece, found

    def _check_others(self, batch: Batch, error: Exception) -> None:
        """Raise the error unless a row goes through."""
        if fault_of(error) is Fault.RUN:
            raise error
        if self._good is not None:
            candidates = iter([self._good])
        else:
            elsewhere = Subset.spread(self._source, _TRIED).batches(1)
            candidates = (
                row for rows in (_some_rows(batch), elsewhere) for row in rows if len(row.inputs)
            )
        for row in candidates:
            try:
                self.example = self._call(row)
            except Exception:  # the first error tells more
                continue
            self._good = row
            return
        raise error

    def _remember(self, batch: Batch) -> None:
        """Keep the first row that went through."""
        if self._good is None and len(batch.inputs):
            row = next(_some_rows(batch))
            # A view would keep all of the batch.
            inputs = row.inputs.clone() if isinstance(row.inputs, Inputs) else row.inputs
            self._good = replace(row, inputs=inputs)


def _some_rows(batch: Batch) -> Iterator[Batch]:
    """Return rows of a batch whose status is ok, one by one, evenly spaced."""
    ok = np.flatnonzero([status == OK for status in batch.status])
    chosen = ok[np.linspace(0, len(ok) - 1, min(len(ok), _TRIED)).round().astype(np.intp)]
    return (batch.rows(row, row + 1) for row in chosen.tolist())
