"""An iterable torch data set, read from its start whenever an earlier row is needed."""

from __future__ import annotations

import functools
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.data.faults import ConfigurationError
from lc_engine.data.readers.rows import RowSource, describe_transform, sampled_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.data.readers.rows import Load, Transform


class IterableSource(RowSource):
    """Rows of `for input, label in dataset`, numbered in order.

    The data set must yield the same rows in the same order each time: no shuffling, the evaluation
    transform. Without a `__len__` it is iterated once to count its rows; a run that continues
    iterates over the rows that are done. An exception of the data set ends the job, because its
    later rows cannot be reached.

    Args:
        dataset: an iterable that can be iterated repeatedly.
        transform: for inputs that are images; tensors and arrays are used as they are.
        num_workers: threads that transform; None takes one per processor.

    Raises:
        ValueError: an iterator, which can be read only once.
    """

    reads_targets = True

    def __init__(self, dataset: Any, transform: Transform | None, num_workers: int | None) -> None:
        if iter(dataset) is dataset:
            raise ValueError(
                f"data: a {type(dataset).__name__} can be read only once; pass an iterable data "
                "set, which starts again with every `for`"
            )
        classes = getattr(dataset, "classes", None)
        named = isinstance(classes, list | tuple) and all(isinstance(c, str) for c in classes)
        super().__init__(transform, num_workers, list(classes) if named and classes else None)
        self.dataset = dataset
        self._rows = len(dataset) if hasattr(dataset, "__len__") else sum(1 for _ in dataset)
        # The iterator by the row it stopped at, where the next range continues.
        self._idle: dict[int, Iterator[Any]] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def _ids(self, rows: range) -> np.ndarray:
        return np.arange(rows.start, rows.stop, dtype=np.int64)

    def _loads(self, rows: range) -> Iterator[Load]:
        reader = self._idle.pop(rows.start, None) or islice(self.dataset, rows.start, None)
        for row in rows:
            try:
                pair = next(reader)
            except StopIteration:
                raise ConfigurationError(
                    f"data: it ended after {row} rows, but had {self._rows} before: it must yield "
                    "the same rows each time"
                ) from None
            yield functools.partial(_load, row, pair)
        self._idle = {rows.stop: reader}

    def digest(self) -> str:
        """Hash the class, the length and the first row; more would mean reading all rows."""
        loads = self._loads(range(min(1, len(self))))
        return sampled_digest(self.dataset, len(self), map(self._row, loads))

    def describe(self) -> dict[str, Any]:
        """Return the kind, the class, the rows, the classes and the transform."""
        return {
            "kind": "iterable_dataset",
            "class": type(self.dataset).__qualname__,
            "rows": len(self),
            "classes": self.classes,
            "transform": describe_transform(self.transform),
        }


def _load(row: int, pair: Any) -> tuple[Callable[[], Any], Any]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        kind = type(pair).__name__
        raise ConfigurationError(f"data: row {row} must be an (input, label) pair, got {kind}")
    return (lambda: pair[0]), pair[1]
