"""Sources that read many rows at once: feature matrices in memory, in `.npy` and in Arrow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from lc_engine._util.ordered_map import ordered_map
from lc_engine.data import batch
from lc_engine.data.batch import HOLDS_NON_FINITE, Batch, row_ranges
from lc_engine.data.mostly import Mostly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Blocks kept ready while the consumer computes: one to take, one being read.
_AHEAD = 2
# Of a batch of plain features: large enough that what is done once per batch does not show, small
# enough that what was just read is still in the cache.
_BATCH_VALUES = 1 << 21
_PICTURES = 64


class Block(NamedTuple):
    """Consecutive rows as they were read, not yet judged.

    Attributes:
        features: (B, ...) floating point; anything in rows that are unreadable.
        labels: (B,) int64; −1 where there is none.
        unreadable: row in the block -> what is wrong with it.
    """

    features: np.ndarray
    labels: np.ndarray
    unreadable: dict[int, str]


class BlockSource(ABC):
    """Reads blocks of features in a thread of its own while the consumer computes.

    Args:
        classes: names of the classes; labels outside them are bad.
    """

    def __init__(self, classes: list[str] | None = None) -> None:
        self.classes = classes
        # Readers that came to an end, by the row where they stand: the next shard goes on there.
        # A Parquet row group cannot be entered in the middle without decoding what is before.
        self._idle: dict[int, Callable[[range], Block]] = {}

    @property
    def batch_rows(self) -> int:
        """Rows of a batch, where nobody says: few of anything but plain features (N, D)."""
        shape = self.describe()["shape"]
        return max(_PICTURES, _BATCH_VALUES // max(1, *shape)) if len(shape) == 1 else _PICTURES

    @property
    def shard_rows(self) -> int:
        """Rows of a shard, where nobody says."""
        return 1 << 18

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def _reader(self, start: int) -> Callable[[range], Block]:
        """Return a function that reads ranges of rows, called in order from row `start` on."""

    @abstractmethod
    def digest(self) -> str:
        """Return a fingerprint of the input."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what the input is, as JSON."""

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order; see `Source.batches`."""
        return self._batches(row_ranges(len(self), batch_size, start, stop))

    def _batches(self, cuts: list[range]) -> Iterator[Batch]:
        if not cuts:
            return
        start = cuts[0].start
        read = self._idle.pop(start, None) or self._reader(start)
        yield from ordered_map(
            lambda cut: to_batch(cut, read(cut), self.classes), cuts, num_workers=1, ahead=_AHEAD
        )
        self._idle = {cuts[-1].stop: read}


def to_batch(rows: range, block: Block, classes: list[str] | None) -> Batch:
    """Give every row of a block its status, and the inputs of those that are ok."""
    features, labels, unreadable = block
    status, detail = Mostly(len(rows), batch.OK), Mostly(len(rows), "")

    outside = labels < 0 if classes is None else (labels < 0) | (labels >= len(classes))
    if outside.any():
        known = "" if classes is None else f", but there are {len(classes)} classes"
        for row in np.flatnonzero(outside).tolist():
            status[row] = batch.BAD_LABEL
            detail[row] = f"the label is {labels[row]}{known}"
        labels = np.where(outside, batch.NO_LABEL, labels)
    for row in _non_finite_rows(features).tolist():
        if status[row] == batch.OK:
            status[row], detail[row] = batch.NON_FINITE, HOLDS_NON_FINITE
    for row, reason in unreadable.items():
        status[row], detail[row] = batch.UNREADABLE, reason

    if status.others:
        ok = np.ones(len(rows), dtype=bool)
        ok[list(status.others)] = False
        features = features[ok]
    return Batch(
        ids=np.arange(rows.start, rows.stop, dtype=np.int64),
        inputs=torch.from_numpy(features),
        labels=torch.from_numpy(np.asarray(labels, dtype=np.int64)),
        status=status,
        detail=detail,
    )


def _non_finite_rows(features: np.ndarray) -> np.ndarray:
    flat = features.reshape(len(features), -1) if features.size else features.reshape(0, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        # NaN and infinity survive a sum: one pass that writes nothing clears almost every block.
        if np.isfinite(flat.sum(dtype=np.float32)):
            return np.empty(0, dtype=np.int64)
    return np.flatnonzero(~np.isfinite(flat).all(axis=1))
