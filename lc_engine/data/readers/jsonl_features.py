"""Features as JSON Lines, plain or compressed: an object with a list of numbers per line."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.data.batch import NO_LABEL
from lc_engine.data.labels import int64_label
from lc_engine.data.readers.blocks import Block, BlockSource
from lc_engine.data.readers.jsonl import JsonLines
from lc_engine.data.readers.records import RowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lc_engine.data.readers.records import Record

# Rows that are searched for one that has the fields.
_SEARCHED_ROWS = 100


class JsonLinesSource(BlockSource):
    """A list of numbers and an integer label per line; a bad line is the status of its row.

    Args:
        path: a `.jsonl`, `.jsonl.gz`, `.jsonl.zst` or `.ndjson` file.
        feature_column: field of the features; None takes the only one that is a list of numbers.
        label_column: field of the label; None takes "label".

    Raises:
        ValueError: a file that cannot be decompressed, or without the fields.
    """

    def __init__(self, path: Path, feature_column: str | None, label_column: str | None) -> None:
        self.records = JsonLines(path)
        super().__init__(states=self.records.states)
        self.label = label_column or "label"
        self.feature, self.width = self._fields(feature_column)

    def _fields(self, asked: str | None) -> tuple[str, int]:
        """Return the field and the length of the features that most of the first lines have."""
        found: Counter[tuple[str, int]] = Counter()
        for record in self.records.read(0, min(len(self), _SEARCHED_ROWS)):
            if not isinstance(record.fields, dict):
                continue
            fitting = [name for name, value in record.fields.items() if _numbers(value) is not None]
            if asked in fitting or (asked is None and len(fitting) == 1):
                name = asked or fitting[0]
                found[name, len(record.fields[name])] += 1
        if not found:
            raise ValueError(
                f"feature_column {asked or ''!r}: none of the first {_SEARCHED_ROWS} lines of "
                f"{self.records.path} has {'it as' if asked else 'exactly one'} list of numbers"
            )
        return found.most_common(1)[0][0]

    def __len__(self) -> int:
        """Return the number of lines that are not blank."""
        return len(self.records)

    def _reader(self, start: int) -> Callable[[range], Block]:
        records = self.records.read(start, len(self))
        return lambda rows: self._block(islice(records, len(rows)), len(rows))

    def _block(self, records: Iterator[Record], rows: int) -> Block:
        features = np.zeros((rows, self.width), np.float32)
        labels = np.full(rows, NO_LABEL, np.int64)
        unreadable: dict[int, str] = {}
        unlabelled: dict[int, str] = {}
        for i, record in enumerate(records):
            if not isinstance(record.fields, dict):
                known = isinstance(record.fields, RowError)
                reason = record.fields if known else "not a JSON object"
                unreadable[i] = f"{record.where}: {reason}"
                continue
            value = record.fields.get(self.label)
            labels[i], complaint = int64_label(value, repr(value))
            if complaint:
                unlabelled[i] = complaint
            values = _numbers(record.fields.get(self.feature))
            if values is None or len(values) != self.width:
                unreadable[i] = (
                    f"{record.where}: {self.feature!r} must be a list of {self.width} numbers"
                )
            else:
                with np.errstate(over="ignore"):  # beyond float32: infinite, so not finite
                    features[i] = values
        return Block(features, labels, unreadable, unlabelled)

    def digest(self) -> str:
        """Hash the name, size and modification time of the file."""
        return self.records.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the rows, the fields and the width."""
        return {
            "kind": "jsonl_features",
            "rows": len(self),
            "feature_column": self.feature,
            "label_column": self.label,
            "shape": [self.width],
        }


def _numbers(value: Any) -> np.ndarray | None:
    """Return a list of numbers as an array with NaN for null, or None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    if not all(type(number) in (int, float, type(None)) for number in value):
        return None
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:  # an integer beyond float64, which is infinite as 1e400 is
        return np.array([math.nan if n is None else _float(n) for n in value])


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
