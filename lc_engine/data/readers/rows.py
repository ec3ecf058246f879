"""Base of the sources whose rows are decoded one at a time by threads: images, torch data sets."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lc_engine._util.ordered_map import default_workers, ordered_map
from lc_engine.data import batch
from lc_engine.data.batch import HOLDS_NON_FINITE, Batch, row_ranges
from lc_engine.data.faults import (
    ConfigurationError,
    Fault,
    describe_error,
    fault_of,
    patiently,
    without_addresses,
)
from lc_engine.data.identity import FileStates
from lc_engine.data.labels import int64_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    Transform = Callable[[Any], Any]
    # Reads a row and returns (decode, label): a row that cannot be decoded still has its label.
    Load = Callable[[], tuple[Callable[[], Any], Any]]


# Readable rows whose most frequent shape all rows must have.
_REFERENCE_ROWS = 9


class Row(NamedTuple):
    """One decoded row; `input` is None unless the status is "ok"."""

    input: Tensor | None
    label: int
    status: str
    detail: str


class RowSource(ABC):
    """Decodes rows in threads, in order; an error of a row becomes its status.

    Args:
        transform: from an image to the model's input tensor; rows that are tensors are used as
            they are.
        num_workers: decoding threads; None takes one per processor, 0 none.
        classes: names of the classes; labels outside them are bad.
        states: of the files that the rows are read from.

    Attributes:
        folders: see `lc_engine.data.locations.folders_of`.
    """

    folders: tuple[Path, ...] = ()

    def __init__(
        self,
        transform: Transform | None,
        num_workers: int | None,
        classes: list[str] | None,
        states: FileStates | None = None,
    ) -> None:
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {num_workers}")
        self.transform = transform
        self.num_workers = default_workers() if num_workers is None else num_workers
        self.classes = classes
        self.states = FileStates.of([]) if states is None else states
        self._like: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def _ids(self, rows: range) -> np.ndarray:
        """Return the ids of these rows."""

    @abstractmethod
    def _loads(self, rows: range) -> Iterator[Load]:
        """Return, per row, a function that returns (decode, label); both may raise."""

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
        return self.batches_of(row_ranges(len(self), batch_size, start, stop), batch_size)

    def batches_of(self, cuts: Sequence[range], batch_size: int) -> Iterator[Batch]:
        """Read a batch per range of rows, decoding about two batches of `batch_size` ahead."""
        like = self._reference_input()
        loads = chain.from_iterable(self._loads(cut) for cut in cuts)
        ahead = 2 * max(batch_size, self.num_workers)
        rows = ordered_map(self._row, loads, self.num_workers, ahead)
        for cut in cuts:
            yield self._collate(cut, list(islice(rows, len(cut))), like)

    def _reference_input(self) -> Tensor:
        """Return an input of the shape and dtype that most of the first readable rows have.

        All others must have them too. The rows are the first of the source, not of a batch or a
        shard, so that the status of a row does not depend on where reading begins.
        """
        if self._like is None:
            self._like = torch.empty(0)
            found: Counter[tuple[torch.Size, torch.dtype]] = Counter()
            everything = (self._row(load) for load in self._loads(range(len(self))))
            readable = (row.input for row in everything if row.input is not None)
            for value in islice(readable, _REFERENCE_ROWS):
                kind = value.shape, value.dtype
                found[kind] += 1
                if found.most_common(1)[0][0] == kind:
                    self._like = value
                if found[kind] > _REFERENCE_ROWS // 2:
                    break
        return self._like

    def _row(self, load: Load) -> Row:
        number, complaint = batch.NO_LABEL, ""
        # Data sets and transforms are the user's code, and a broken row may raise anything.
        try:
            decode, label = load()
            number, complaint = check_label(label, self.classes)
            value = patiently(lambda: self._to_tensor(decode()), "the input of a row", listed=False)
        except Exception as error:
            if fault_of(error, listed=False) is not Fault.ROW:
                raise
            return Row(None, number, batch.UNREADABLE, describe_error(error))
        if complaint:
            return Row(None, number, batch.BAD_LABEL, complaint)
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return Row(None, number, batch.NON_FINITE, HOLDS_NON_FINITE)
        return Row(value, number, batch.OK, "")

    def _to_tensor(self, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if self.transform is None:
            raise ConfigurationError(
                f"transform is needed: the rows are {type(value).__name__}, not tensors; pass the "
                "model's evaluation transform"
            )
        value = self.transform(value)
        if not isinstance(value, Tensor):
            raise ConfigurationError(f"transform must return a tensor, got {type(value).__name__}")
        return value

    def _collate(self, cut: range, rows: list[Row], like: Tensor) -> Batch:
        rows = [_checked_shape(row, like) for row in rows]
        inputs = [row.input for row in rows if row.input is not None]
        return Batch(
            ids=self._ids(cut),
            inputs=torch.stack(inputs) if inputs else like.new_empty((0, *like.shape)),
            labels=torch.tensor([row.label for row in rows], dtype=torch.int64),
            status=[row.status for row in rows],
            detail=[row.detail for row in rows],
        )


def sampled_digest(dataset: Any, length: int, rows: Iterable[Row]) -> str:
    """Hash the class and length of a data set and some of its rows; all would mean reading it."""
    digest = hashlib.sha256(f"{type(dataset).__qualname__}\0{length}\n".encode())
    for row in rows:
        digest.update(f"{row.label}\0{row.status}\n".encode())
        if row.input is not None:
            digest.update(np.ascontiguousarray(row.input.float().cpu().numpy()).data)
    return digest.hexdigest()


def describe_transform(transform: Transform | None) -> str | None:
    """Return a transform's repr without the addresses of objects: the same in every process."""
    return None if transform is None else without_addresses(repr(transform))


def check_label(label: Any, classes: list[str] | None) -> tuple[int, str]:
    """Return (label, "") or (−1, what is wrong with it)."""
    number, complaint = int64_label(label, without_addresses(repr(label)))
    if complaint:
        return number, complaint
    if number < 0:
        return batch.NO_LABEL, f"the label is {number}, but must not be negative"
    if classes is not None and number >= len(classes):
        return batch.NO_LABEL, f"the label is {number}, but there are {len(classes)} classes"
    return number, ""


def _checked_shape(row: Row, like: Tensor) -> Row:
    if row.input is None or (row.input.shape, row.input.dtype) == (like.shape, like.dtype):
        return row
    return Row(
        None,
        row.label,
        batch.UNREADABLE,
        f"the input has shape {tuple(row.input.shape)} and {row.input.dtype}, that of most rows "
        f"has {tuple(like.shape)} and {like.dtype}",
    )
