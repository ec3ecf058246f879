"""Some rows of a source, as a source of their own."""

from __future__ import annotations

from functools import reduce
from itertools import chain, islice
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine.data.batch import Batch, row_ranges
from lc_engine.data.fields import Fields
from lc_engine.data.identity import check_unchanged
from lc_engine.data.locations import folders_of
from lc_engine.data.readers.rows import RowSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lc_engine.data.batch import Source


class Subset:
    """Rows of a source by number; consecutive rows are read together.

    Args:
        source: the whole; of a subset, the rows are numbered within it.
        rows: (M,) row numbers, ascending.

    Attributes:
        source: the whole, never a subset itself.
    """

    source: Source
    _rows: NDArray[np.intp]

    def __init__(self, source: Source, rows: NDArray[np.intp]) -> None:
        if isinstance(source, Subset):
            self.source, self._rows = source.source, source._rows[rows]
        else:
            self.source, self._rows = source, rows
        self.classes = source.classes
        self.num_workers = getattr(source, "num_workers", None)
        self.folders = folders_of(source)

    @classmethod
    def first(cls, source: Source, count: int) -> Subset:
        """Return the first `count` rows of a source."""
        return cls(source, np.arange(count))

    @classmethod
    def spread(cls, source: Source, count: int) -> Subset:
        """Return up to `count` evenly spaced rows of a source."""
        return cls(source, evenly_spaced(len(source), count))

    def __len__(self) -> int:
        """Return M."""
        return len(self._rows)

    def digest(self) -> str:
        """Return the fingerprint of the whole source."""
        return self.source.digest()

    def describe(self) -> dict[str, Any]:
        """Return what the source is, and how many of its rows these are."""
        return self.source.describe() | {"rows": len(self), "of": len(self.source)}

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows, and of those between, with what they were."""
        if len(rows):
            first, last = (int(self._rows[row]) for row in (rows.start, rows.stop - 1))
            check_unchanged(self.source, range(first, last + 1))

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read chosen rows [start, stop), in order; see `Source.batches`."""
        cuts = row_ranges(len(self), batch_size, start, stop)
        if not cuts:
            return iter(())
        rows = self._rows[cuts[0].start : cuts[-1].stop]
        if rows[-1] - rows[0] == len(rows) - 1:
            return self.source.batches(batch_size, int(rows[0]), int(rows[-1]) + 1)
        runs = [_runs(self._rows[cut.start : cut.stop]) for cut in cuts]
        return map(concatenated, self._read(runs, batch_size))

    def _read(self, cuts: list[list[range]], batch_size: int) -> Iterator[list[Batch]]:
        """Read the runs of each batch."""
        if isinstance(self.source, RowSource):
            # All in one go, so that rows far apart are decoded side by side.
            batches = self.source.batches_of(list(chain.from_iterable(cuts)), batch_size)
            yield from (list(islice(batches, len(cut))) for cut in cuts)
            return
        for cut in cuts:
            read = (self.source.batches(len(run), run.start, run.stop) for run in cut)
            yield list(chain.from_iterable(read))


def whole_of(source: Source) -> Source:
    """Return the source that a subset is of; any other source as it is."""
    return source.source if isinstance(source, Subset) else source


def evenly_spaced(rows: int, count: int) -> NDArray[np.intp]:
    """Return up to `count` evenly spaced row numbers of `rows`, first and last included."""
    return np.linspace(0, rows - 1, min(rows, count)).round().astype(np.intp)


def _runs(rows: NDArray[np.intp]) -> list[range]:
    """Cut ascending row numbers in runs of consecutive ones."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [range(int(part[0]), int(part[-1]) + 1) for part in parts]


def concatenated(batches: Sequence[Batch]) -> Batch:
    """Return consecutive batches, one at least, as one."""
    if len(batches) == 1:
        return batches[0]
    inputs = [batch.inputs for batch in batches if len(batch.inputs)] or [batches[0].inputs]
    targets = [batch.targets for batch in batches]
    sources = [batch.sources for batch in batches if batch.sources is not None]
    return Batch(
        ids=np.concatenate([batch.ids for batch in batches]),
        inputs=_joined(inputs),
        labels=torch.cat([batch.labels for batch in batches]),
        status=[status for batch in batches for status in batch.status],
        detail=[detail for batch in batches for detail in batch.detail],
        targets=None if targets[0] is None else [one for part in targets for one in part or ()],
        sources=np.concatenate(sources) if sources else None,
    )


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], torch.Tensor):
        return torch.cat(parts)
    return Fields.join(parts) if isinstance(parts[0], Fields) else reduce(add, parts)
