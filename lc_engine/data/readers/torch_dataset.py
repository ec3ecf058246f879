"""A map-style torch data set of (input, label) pairs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.data.faults import ConfigurationError, patiently
from lc_engine.data.locations import folders_of
from lc_engine.data.readers.rows import RowSource, describe_transform, sampled_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.data.readers.rows import Load, Transform


class TorchDatasetSource(RowSource):
    """Rows `dataset[i] -> (input, label)`, read by one thread unless more are known to be safe.

    The data set must return the same row each time for an index: use the evaluation transform.

    Args:
        dataset: an object with `__len__` and `__getitem__`. `dataset.classes`, if it is a list of
            names, bounds the labels.
        transform: for inputs that are images; tensors and arrays are used as they are.
        num_workers: reading threads, 0 for none. Above 1, `dataset[i]` is called from several
            threads at once, which is not safe where the data set shares an open file; so None
            takes one, and one per processor only for torchvision's data sets.

    Raises:
        ValueError: no length, or no access by index.
    """

    reads_targets = True

    def __init__(
        self, dataset: Any, transform: Transform | None = None, num_workers: int | None = None
    ) -> None:
        name = type(dataset).__name__
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise ValueError(
                f"data: {name} must have __len__ and __getitem__ (a map-style data set)"
            )
        classes = getattr(dataset, "classes", None)
        named = isinstance(classes, list | tuple) and all(isinstance(c, str) for c in classes)
        if num_workers is None and type(dataset).__module__.partition(".")[0] != "torchvision":
            num_workers = 1
        super().__init__(transform, num_workers, list(classes) if named and classes else None)
        self.dataset, self.folders = dataset, folders_of(dataset)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dataset)

    def _ids(self, rows: range) -> np.ndarray:
        return np.arange(rows.start, rows.stop, dtype=np.int64)

    def _loads(self, rows: range) -> Iterator[Load]:
        return (functools.partial(self._load, row) for row in rows)

    def _load(self, row: int) -> tuple[Callable[[], Any], Any]:
        pair = patiently(lambda: self.dataset[row], f"data[{row}]", listed=False)
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            kind = type(pair).__name__
            raise ConfigurationError(f"data[{row}] must be an (input, label) pair, got {kind}")
        return (lambda: pair[0]), pair[1]

    def digest(self) -> str:
        """Hash the class, the length, and the first, the middle and the last row."""
        indices = sorted({0, len(self) // 2, len(self) - 1} & set(range(len(self))))
        loads = (functools.partial(self._load, index) for index in indices)
        return sampled_digest(self.dataset, len(self), map(self._row, loads))

    def describe(self) -> dict[str, Any]:
        """Return the kind, the class, the rows, the classes and the transform."""
        return {
            "kind": "torch_dataset",
            "class": type(self.dataset).__qualname__,
            "rows": len(self),
            "classes": self.classes,
            "transform": describe_transform(self.transform),
        }
