"""Base of the sources whose rows are decoded one at a time by threads: images, torch data sets."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
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
from lc_engine.data.fields import Fields, as_tensors
from lc_engine.data.identity import FileStates
from lc_engine.data.targets import OWN_TARGETS, Label, read_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from lc_engine.data.fields import Inputs
    from lc_engine.data.targets import LabelKind

    Transform = Callable[[Any], Any]
    # Reads a row and returns (decode, label): a row that cannot be decoded still has its label.
    Load = Callable[[], tuple[Callable[[], Any], Any]]


# Readable rows whose most frequent shape all rows must have.
_REFERENCE_ROWS = 9


class Row(NamedTuple):
    """One decoded row; `input` is None unless the status is "ok", a mapping where it has names."""

    input: Tensor | Mapping[str, Tensor] | None
    label: int
    status: str
    detail: str
    target: Any = None


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
        label_kind: what the labels are.
        reads_targets: whether they may be something else than the number of a class.
    """

    folders: tuple[Path, ...] = ()
    label_kind: LabelKind = "class"
    reads_targets = False

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
        self._like: Tensor | Mapping[str, Tensor] | None = None

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

    def _reference_input(self) -> Tensor | Mapping[str, Tensor]:
        """Return an input of the shape and dtype that most of the first readable rows have.

        All others must have them too. The rows are the first of the source, not of a batch or a
        shard, so that the status of a row does not depend on where reading begins.
        """
        if self._like is None:
            self._like = torch.empty(0)
            found: Counter[Any] = Counter()
            everything = (self._row(load) for load in self._loads(range(len(self))))
            readable = (row.input for row in everything if row.input is not None)
            for value in islice(readable, _REFERENCE_ROWS):
                kind = _form_of(value)
                found[kind] += 1
                if found.most_common(1)[0][0] == kind:
                    self._like = value
                if found[kind] > _REFERENCE_ROWS // 2:
                    break
        return self._like

    def _row(self, load: Load) -> Row:
        own = Label(batch.NO_LABEL)
        # Data sets and transforms are the user's code, and a broken row may raise anything.
        try:
            decode, label = load()
            own = read_label(self.label_kind, label, self.classes)
            value = patiently(
                lambda: self._to_tensors(decode()), "the input of a row", listed=False
            )
        except Exception as error:
            if fault_of(error, listed=False) is not Fault.ROW:
                raise
            return Row(None, own.number, batch.UNREADABLE, describe_error(error))
        if own.complaint:
            return Row(None, own.number, batch.BAD_LABEL, own.complaint)
        if not all(_is_finite(part) for part in _parts(value)):
            return Row(None, own.number, batch.NON_FINITE, HOLDS_NON_FINITE)
        return Row(value, own.number, batch.OK, "", own.target)

    def _to_tensors(self, value: Any) -> Tensor | Mapping[str, Tensor]:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if isinstance(value, Mapping) and value:
            found: Mapping[str, Tensor] = as_tensors(value)
            return found
        if self.transform is None:
            raise ConfigurationError(
                f"transform is needed: the rows are {type(value).__name__}, not tensors; pass the "
                "model's evaluation transform"
            )
        value = self.transform(value)
        if isinstance(value, Mapping) and value:
            return value
        if not isinstance(value, Tensor):
            raise ConfigurationError(f"transform must return a tensor, got {type(value).__name__}")
        return value

    def _collate(self, cut: range, rows: list[Row], like: Tensor | Mapping[str, Tensor]) -> Batch:
        rows = [_checked_form(row, like) for row in rows]
        read = [row for row in rows if row.input is not None]
        return Batch(
            ids=self._ids(cut),
            inputs=_stacked([row.input for row in read], like),
            labels=torch.tensor([row.label for row in rows], dtype=torch.int64),
            status=[row.status for row in rows],
            detail=[row.detail for row in rows],
            targets=[row.target for row in read] if self.label_kind in OWN_TARGETS else None,
        )


def sampled_digest(dataset: Any, length: int, rows: Iterable[Row]) -> str:
    """Hash the class and length of a data set and some of its rows; all would mean reading it."""
    digest = hashlib.sha256(f"{type(dataset).__qualname__}\0{length}\n".encode())
    for row in rows:
        digest.update(f"{row.label}\0{row.status}\n".encode())
        for part in _parts([] if row.input is None else row.input, row.target):
            digest.update(np.ascontiguousarray(part.float().cpu().numpy()).data)
    return digest.hexdigest()


def describe_transform(transform: Transform | None) -> str | None:
    """Return a transform's repr without the addresses of objects: the same in every process."""
    return None if transform is None else without_addresses(repr(transform))


def _parts(*values: Any) -> Iterator[Tensor]:
    """Yield the tensors in values, mappings in the order of their names."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from _parts(*(value[name] for name in sorted(value)))
        elif isinstance(value, list):
            yield from _parts(*value)


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _stacked(inputs: list[Any], like: Tensor | Mapping[str, Tensor]) -> Inputs:
    if isinstance(like, Tensor):
        return torch.stack(inputs) if inputs else like.new_empty((0, *like.shape))
    return Fields.stack(inputs) if inputs else Fields.stack([like])[:0]


def _form_of(value: Tensor | Mapping[str, Tensor]) -> Any:
    """Return the shape and dtype of an input, those of each part where it has names."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    return tuple((name, _form_of(value[name])) for name in sorted(value))


def _checked_form(row: Row, like: Tensor | Mapping[str, Tensor]) -> Row:
    if row.input is None or _form_of(row.input) == _form_of(like):
        return row
    return Row(
        None,
        row.label,
        batch.UNREADABLE,
        f"the input has {_in_words(row.input)}, that of most rows has {_in_words(like)}",
    )


def _in_words(value: Tensor | Mapping[str, Tensor]) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)} and {value.dtype}"
    return ", ".join(f"{name} of {_in_words(value[name])}" for name in sorted(value))
