"""Base of the sources that read many rows at once: feature matrices in memory, files and Arrow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from lc_engine._util.ordered_map import ordered_map
from lc_engine.data import batch
from lc_engine.data.batch import HOLDS_NON_FINITE, Batch, row_ranges
from lc_engine.data.identity import FileStates
from lc_engine.data.sparse_texts import SparseTexts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lc_engine.data.targets import LabelKind

# Blocks read ahead of the consumer: one ready, one being read.
_AHEAD = 2
# Values in a batch of plain features: enough to amortize the cost of a batch, few enough to stay in
# the cache between reading and scoring.
_BATCH_VALUES = 1 << 21
# Rows of a batch of anything else, such as images in a `.npy` file.
_BATCH_ROWS = 64


class Block(NamedTuple):
    """Consecutive rows as read, without their status.

    Attributes:
        features: (B, ...) floating point; undefined in unreadable rows.
        labels: (B,) int64; −1 where there is none.
        unreadable: row of the block -> what is wrong with it.
        unlabelled: row of the block -> why it has no label, where more than −1 is known.
    """

    features: np.ndarray
    labels: np.ndarray
    unreadable: dict[int, str]
    unlabelled: Mapping[int, str] = MappingProxyType({})


class BlockSource(ABC):
    """Reads blocks of features in a thread of its own while the consumer computes.

    Args:
        classes: names of the classes; labels outside them are bad.
        states: of the files that the rows are read from.

    Attributes:
        folders: see `lc_engine.data.locations.folders_of`.
        label_kind: "class", or "none" where labels are not read.
    """

    folders: tuple[Path, ...] = ()
    label_kind: LabelKind = "class"
    reads_targets = False

    def __init__(self, classes: list[str] | None = None, states: FileStates | None = None) -> None:
        self.classes = classes
        self.states = FileStates.of([]) if states is None else states
        # Readers by the row they stopped at, where the next shard continues: entering a Parquet
        # row group in the middle would decode all rows before.
        self._idle: dict[int, Callable[[range], Block]] = {}

    @property
    def batch_rows(self) -> int:
        """Default rows of a batch: many of plain features (N, D), few of anything else."""
        shape = self.row_shape
        rows = _BATCH_VALUES // max(1, *shape) if len(shape) == 1 else 0
        return max(_BATCH_ROWS, rows)

    @property
    def row_shape(self) -> list[int]:
        """Shape of a row's features."""
        shape: list[int] = self.describe()["shape"]
        return shape

    @property
    def shard_rows(self) -> int:
        """Default rows of a shard."""
        return 1 << 18

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def _reader(self, start: int) -> Callable[[range], Block]:
        """Return a function that reads ranges of rows; it is called in order, from `start` on."""

    @abstractmethod
    def digest(self) -> str:
        """Return a fingerprint of the data."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return a description of the data, as JSON."""

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        self.states.check()

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order; see `Source.batches`."""
        return self._batches(row_ranges(len(self), batch_size, start, stop))

    def _batches(self, cuts: list[range]) -> Iterator[Batch]:
        if not cuts:
            return
        start = cuts[0].start
        read = self._idle.pop(start, None) or self._reader(start)
        yield from ordered_map(
            lambda cut: to_batch(cut, read(cut), self.classes, self.label_kind),
            cuts,
            num_workers=1,
            ahead=_AHEAD,
        )
        self._idle = {cuts[-1].stop: read}


def to_batch(
    rows: range, block: Block, classes: list[str] | None, label_kind: LabelKind = "class"
) -> Batch:
    """Return a block as a batch, each row with its status."""
    features, labels, unreadable, unlabelled = block
    if label_kind == "none":
        labels = np.full(len(rows), batch.NO_LABEL)
    status, detail = SparseTexts(len(rows), batch.OK), SparseTexts(len(rows), "")

    outside = labels < 0 if classes is None else (labels < 0) | (labels >= len(classes))
    if label_kind != "none" and outside.any():
        known = "" if classes is None else f", but there are {len(classes)} classes"
        for row in np.flatnonzero(outside).tolist():
            status[row] = batch.BAD_LABEL
            detail[row] = unlabelled.get(row, f"the label is {labels[row]}{known}")
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
    """Return the indices of rows that hold NaN or infinity."""
    flat = features.reshape(len(features), -1) if features.size else features.reshape(0, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        # NaN and infinity propagate through a sum, which clears almost every block in one pass.
        if np.isfinite(flat.sum(dtype=np.float32)):
            return np.empty(0, dtype=np.int64)
    return np.flatnonzero(~np.isfinite(flat).all(axis=1))
