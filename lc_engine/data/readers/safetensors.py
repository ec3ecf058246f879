"""Features and labels in one `.safetensors` file, read block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.safetensors_header import read_header
from lc_engine.data.faults import patiently
from lc_engine.data.identity import FileStates
from lc_engine.data.labels import int64_labels
from lc_engine.data.readers.arrays import check_features, check_labels, read_rows
from lc_engine.data.readers.blocks import Block, BlockSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lc_engine._util.safetensors_header import TensorEntry

_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}  # NumPy has no bfloat16
_INTEGERS = {"I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
_INTEGERS |= {"U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}


class SafetensorsSource(BlockSource):
    """A tensor of features (N, …) and one of integer labels (N,), never read whole.

    Args:
        path: the file.
        feature_column: name of the features; None takes the only tensor (N, …) of numbers.
        label_column: name of the labels; None takes "label", "labels" or the only integers (N,).

    Raises:
        ValueError: not a `.safetensors` file; a tensor that is missing, of a wrong dtype or shape
            (the text lists the tensors).
    """

    def __init__(self, path: Path, feature_column: str | None, label_column: str | None) -> None:
        super().__init__(states=FileStates.of([path], listed=False))
        self.path = path
        header = patiently(lambda: read_header(path), path)
        floats = [n for n, t in header.items() if t.dtype in _FLOATS and len(t.shape) > 1]
        whole = [n for n, t in header.items() if t.dtype in _INTEGERS and len(t.shape) == 1]
        usual = next((name for name in ("label", "labels") if name in whole), None)
        self.names = (
            _choose("feature_column", feature_column, floats, header),
            _choose("label_column", label_column or usual, whole, header),
        )
        self._bfloat16 = header[self.names[0]].dtype == "BF16"
        self.features, self.labels = (_mapped(path, header[name]) for name in self.names)
        if not self._bfloat16:
            check_features(self.names[0], self.features)
        check_labels(self.names[1], self.labels, len(self.features))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.features)

    def _reader(self, start: int) -> Callable[[range], Block]:
        def read(rows: range) -> Block:
            features = read_rows(self.path, self.features, rows)
            if self._bfloat16:  # the upper half of a float32
                features = (features.astype(np.uint32) << 16).view(np.float32)
            labels = int64_labels(read_rows(self.path, self.labels, rows))
            return Block(features, labels.values, {}, labels.wrong)

        return read

    def digest(self) -> str:
        """Hash the name, size and modification time of the file."""
        return self.states.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the tensors, the shape and the dtype."""
        return {
            "kind": "safetensors",
            "rows": len(self),
            "feature_column": self.names[0],
            "label_column": self.names[1],
            "shape": list(self.features.shape[1:]),
            "dtype": "bfloat16" if self._bfloat16 else self.features.dtype.name,
        }


def _mapped(path: Path, tensor: TensorEntry) -> np.memmap[Any, Any]:
    dtype = np.dtype((_FLOATS | _INTEGERS)[tensor.dtype])
    return np.memmap(path, dtype, "r", tensor.start, tensor.shape)


def _choose(
    what: str, asked: str | None, fitting: list[str], header: dict[str, TensorEntry]
) -> str:
    tensors = ", ".join(f"{name} ({t.dtype} {list(t.shape)})" for name, t in header.items())
    if asked is not None:
        if asked not in fitting:
            raise ValueError(f"{what} {asked!r} does not fit; the tensors are {tensors}")
        return asked
    if len(fitting) != 1:
        raise ValueError(f"{what} must be named: {len(fitting)} fit; the tensors are {tensors}")
    return fitting[0]
