"""Several sources as one: their rows after each other, each with the name of its source."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch

from lc_engine.data.batch import NO_LABEL, row_ranges
from lc_engine.data.identity import check_unchanged
from lc_engine.data.locations import folders_of
from lc_engine.data.readers.blocks import BlockSource
from lc_engine.data.readers.rows import RowSource
from lc_engine.data.targets import OWN_TARGETS
from lc_engine.data.wrap.subset import concatenated, whole_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lc_engine.data.batch import Batch, Source
    from lc_engine.data.targets import LabelKind

# A source's name becomes that of a folder.
_NAME = re.compile(r"[\w-][\w.-]*")


class Mixture:
    """The rows of several sources, whose ids are `<source>/<id>`; or several opened data sets.

    Classes go by their names: those of a later source that the earlier ones lack get the next
    numbers.

    Args:
        sources: by name; what has no `batches` is only divided by `rows_of`.

    Attributes:
        sources: by name.
        classes: of all, or None.
        folders: see `lc_engine.data.locations.folders_of`.

    Raises:
        ValueError: no source, a name that no folder can have, or classes named by some alone.
    """

    def __init__(self, sources: Mapping[str, Any]) -> None:
        if not sources:
            raise ValueError("data: name one source at least")
        for name in sources:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(
                    f"data: a source's name becomes a folder, so it must be letters, digits, _, - "
                    f"and ., got {name!r}"
                )
        self.sources = dict(sources)
        self._starts = np.cumsum([0, *map(len, self.sources.values())])
        self.folders = tuple(path for one in sources.values() for path in folders_of(one))
        self.classes, self._numbers = _united(self.sources)
        kinds: set[LabelKind] = {getattr(one, "label_kind", "class") for one in sources.values()}
        if len(kinds) > 1:
            raise ValueError(f"data: sources were opened with labels of the kinds {sorted(kinds)}")
        self.label_kind = kinds.pop()
        if self.label_kind in OWN_TARGETS and not all(map(_is_same_order, self._numbers)):
            raise ValueError(
                "data: the sources number their classes differently, which labels that are not "
                "numbers cannot follow: run them apart"
            )
        # What readers say of their rows, where all do.
        for name in ("batch_rows", "shard_rows"):
            known = [getattr(one, name, None) for one in sources.values()]
            if all(value is not None for value in known):
                setattr(self, name, min(filter(None, known)))
        # With one that no other thread may read, none of them is.
        workers = [getattr(one, "num_workers", None) for one in sources.values()]
        self.num_workers = 0 if 0 in workers else None
        self._are_alike = False

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1])

    def digest(self) -> str:
        """Return a fingerprint of the names and the sources."""
        digest = hashlib.sha256()
        for name, one in self.sources.items():
            digest.update(f"{name}\0{one.digest()}\n".encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the description of each source, the classes, and the files left out."""
        each = {name: one.describe() for name, one in self.sources.items()}
        found: dict[str, Any] = {"kind": "sources", "rows": len(self), "sources": each}
        texts = [column for one in each.values() for column in one.get("text_columns", ())]
        if texts:
            found["text_columns"] = list(dict.fromkeys(texts))
        if self.classes is not None:
            found["classes"] = self.classes
        refused = {
            f"{name}/{file}": reason
            for name, one in each.items()
            for file, reason in one.get("refused", {}).items()
        }
        return found | ({"refused": refused} if refused else {})

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        for _, one, here in self._within(rows):
            check_unchanged(one, here)

    def rows_of(self, rows: NDArray[np.integer]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield the name of each source, and its part of some rows (M,), numbered within it."""
        cuts = np.searchsorted(rows, self._starts)
        for i, name in enumerate(self.sources):
            yield name, np.asarray(rows[cuts[i] : cuts[i + 1]] - self._starts[i], np.int64)

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order; see `Source.batches`.

        Raises:
            ValueError: rows of the sources differ in kind, shape or dtype.
        """
        stop = len(self) if stop is None else stop
        row_ranges(len(self), batch_size, start, stop)  # checks the arguments
        self._check_alike()
        return self._batches(batch_size, range(start, stop))

    def _batches(self, batch_size: int, rows: range) -> Iterator[Batch]:
        waiting: list[Batch] = []  # less than a batch
        for index, one, here in self._within(rows):
            first = min(here.stop, here.start + batch_size - sum(map(len, waiting)))
            for cut in (range(here.start, first), range(first, here.stop)):
                if not len(cut):
                    continue
                for batch in one.batches(batch_size, cut.start, cut.stop):
                    waiting.append(self._named(index, batch))
                    if sum(map(len, waiting)) >= batch_size:
                        yield concatenated(waiting)
                        waiting = []
        if waiting:
            yield concatenated(waiting)

    def _within(self, rows: range) -> Iterator[tuple[int, Source, range]]:
        """Yield each source that has some of the rows, its index, and the rows in it."""
        for index, one in enumerate(self.sources.values()):
            begin, end = self._starts[index : index + 2].tolist()
            low, high = max(rows.start, begin), min(rows.stop, end)
            if low < high:
                yield index, one, range(low - begin, high - begin)

    def _named(self, index: int, batch: Batch) -> Batch:
        name, numbers = list(self.sources)[index], self._numbers[index]
        labels = batch.labels
        if numbers is not None:
            labels = torch.where(labels >= 0, numbers[labels.clamp(min=0)], NO_LABEL)
        ids = np.array([f"{name}/{row}" for row in batch.ids.tolist()], np.str_)
        return replace(batch, ids=ids, labels=labels, sources=np.full(len(ids), name))

    def _check_alike(self) -> None:
        if self._are_alike:
            return
        kinds = {}
        for name, one in self.sources.items():
            if len(one):
                kinds[name] = _kind(next(one.batches(1, 0, 1)).inputs)
        first = next(iter(kinds), "")
        for name, kind in kinds.items():
            if kind != kinds[first]:
                raise ValueError(
                    f"data: a row of {first} is {kinds[first]}, one of {name} {kind}: one model "
                    "cannot score both, run them apart"
                )
        self._are_alike = True


def has_sources(data: Any) -> TypeGuard[Mapping[str, Any]]:
    """Return whether data are several data sets by name."""
    # A DatasetDict holds the splits of one.
    return isinstance(data, Mapping) and type(data).__module__.partition(".")[0] != "datasets"


def parts_of(source: Source) -> list[Source]:
    """Return the sources of a mixture, or the whole that a subset is of; else the source itself."""
    whole = whole_of(source)
    return [*whole.sources.values()] if isinstance(whole, Mixture) else [whole]


def decodes_rows(source: Source) -> bool:
    """Return whether each row is decoded; blocks of features cost nothing to read again."""
    return all(isinstance(one, RowSource) for one in parts_of(source))


def holds_images(source: Source) -> bool:
    """Return whether rows are decoded, or are arrays of more than one dimension each."""
    return all(
        isinstance(one, RowSource) or (isinstance(one, BlockSource) and len(one.row_shape) > 1)
        for one in parts_of(source)
    )


def _united(sources: Mapping[str, Any]) -> tuple[list[str] | None, list[torch.Tensor | None]]:
    """Return the names of all classes, and the new number of each class of each source."""
    every_list = {name: getattr(one, "classes", None) for name, one in sources.items()}
    named: dict[str, list[str]] = {k: v for k, v in every_list.items() if v is not None}
    without = [name for name in every_list if name not in named]
    if not named:
        return None, [None] * len(sources)
    if without:
        raise ValueError(
            f"data: {without[0]} numbers its classes, other sources name them: which are the same "
            "cannot be known, run them apart"
        )
    every = list(dict.fromkeys(label for classes in named.values() for label in classes))
    at = {label: number for number, label in enumerate(every)}
    return every, [torch.tensor([at[label] for label in one]) for one in named.values()]


def _is_same_order(numbers: torch.Tensor | None) -> bool:
    return numbers is None or numbers.tolist() == list(range(len(numbers)))


def _kind(inputs: Any) -> str:
    if isinstance(inputs, torch.Tensor):
        shape = " × ".join(map(str, inputs.shape[1:])) or "1"
        return f"{shape} {str(inputs.dtype).removeprefix('torch.')}"
    return "a conversation" if isinstance(inputs, list) else f"one of {type(inputs).__name__}"
