"""Some rows of a source, as a source of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine.data.batch import Batch, row_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lc_engine.data.batch import Source


class ChosenRows:
    """Rows of a source by number, read in runs of consecutive ones.

    Args:
        source: batches of tensors.
        rows: (M,) row numbers, ascending.
    """

    def __init__(self, source: Source, rows: NDArray[np.intp]) -> None:
        self.classes = source.classes
        self._source = source
        self._rows = rows

    def __len__(self) -> int:
        """Return M."""
        return len(self._rows)

    def digest(self) -> str:
        """Return the fingerprint of the whole source."""
        return self._source.digest()

    def describe(self) -> dict[str, Any]:
        """Return what the source is."""
        return self._source.describe()

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read chosen rows [start, stop), in order."""
        for places in row_ranges(len(self), batch_size, start, stop):
            rows = self._rows[places.start : places.stop]
            runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
            yield _joined(
                [
                    batch
                    for run in runs
                    for batch in self._source.batches(len(run), int(run[0]), int(run[-1]) + 1)
                ]
            )


def _joined(batches: list[Batch]) -> Batch:
    """Make one batch of several."""
    if len(batches) == 1:
        return batches[0]
    inputs = [batch.inputs for batch in batches if len(batch.inputs)]
    return Batch(
        ids=np.concatenate([batch.ids for batch in batches]),
        inputs=torch.cat(inputs) if inputs else batches[0].inputs,
        labels=torch.cat([batch.labels for batch in batches]),
        status=[status for batch in batches for status in batch.status],
        detail=[detail for batch in batches for detail in batch.detail],
    )
