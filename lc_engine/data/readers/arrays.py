"""Features and labels as arrays: tensors in memory, and `.npy` files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine.data.faults import patiently
from lc_engine.data.identity import FileStates
from lc_engine.data.labels import int64_labels
from lc_engine.data.readers.blocks import Block, BlockSource
from lc_engine.data.readers.parsing import parsing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FEATURE_DTYPES = ("float16", "float32", "float64")


class ArraySource(BlockSource):
    """Features (N, ...) and labels (N,), in memory.

    Args:
        features: a tensor or array, float16, float32 or float64.
        labels: a tensor or array of integers.

    Raises:
        ValueError: a wrong dtype or shape, or different lengths.
    """

    def __init__(self, features: Any, labels: Any) -> None:
        super().__init__()
        self.features = check_features("features", _array("features", features))
        self.labels = check_labels("labels", _array("labels", labels), len(self.features))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.features)

    def _reader(self, start: int) -> Callable[[range], Block]:
        def read(rows: range) -> Block:
            # A copy, so that neither the data nor a batch change through the other.
            features = self.features[rows.start : rows.stop].copy(order="C")
            labels = int64_labels(self.labels[rows.start : rows.stop])
            return Block(features, labels.values, {}, labels.wrong)

        return read

    def digest(self) -> str:
        """Hash the contents."""
        digest = hashlib.sha256()
        for array in (self.features, self.labels):
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            for start in range(0, len(array), 65536):
                digest.update(np.ascontiguousarray(array[start : start + 65536]).data)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the shape and the dtype."""
        return {
            "kind": "arrays",
            "rows": len(self),
            "shape": list(self.features.shape[1:]),
            "dtype": self.features.dtype.name,
        }


class NpySource(BlockSource):
    """`features.npy` (N, ...) with `labels.npy` (N,), read block by block, never whole.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: not a `.npy` file, pickled objects, a wrong dtype, shape or memory order,
            different lengths.
    """

    def __init__(self, features: Path, labels: Path) -> None:
        super().__init__(states=FileStates.of((features, labels), listed=False))
        self.paths = (features, labels)
        self.features, self.labels = open_npy(features), open_npy(labels)
        check_features(str(features), self.features)
        check_labels(str(labels), self.labels, len(self.features))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.features)

    def _reader(self, start: int) -> Callable[[range], Block]:
        def read(rows: range) -> Block:
            features = read_rows(self.paths[0], self.features, rows)
            labels = int64_labels(read_rows(self.paths[1], self.labels, rows))
            return Block(features, labels.values, {}, labels.wrong)

        return read

    def digest(self) -> str:
        """Hash the name, size and modification time of both files."""
        return self.states.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the file names, the shape and the dtype."""
        return {
            "kind": "npy",
            "files": [path.name for path in self.paths],
            "rows": len(self),
            "shape": list(self.features.shape[1:]),
            "dtype": self.features.dtype.name,
        }


def open_npy(path: Path) -> np.memmap[Any, Any]:
    """Map a `.npy` file into memory; never unpickle.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a `.npy` file in C order, or one that holds pickled objects.
    """
    with parsing(path, "a .npy array"):
        array = patiently(lambda: _map_npy(path), path)
    if not isinstance(array, np.memmap):
        raise ValueError(f"{path} is an archive of arrays (.npz); pass a .npy file")
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{path} is in Fortran order, so its rows cannot be streamed; "
            "save np.ascontiguousarray of it"
        )
    size, wanted = path.stat().st_size, array.offset + array.nbytes
    if size != wanted:
        raise ValueError(
            f"{path} has {size:,} bytes, but its header says {wanted:,}: it holds more than one "
            "array, or its header is damaged; save it again"
        )
    return array


def _map_npy(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "object" in str(error).lower() or "pickle" in str(error).lower():
            raise ValueError(
                "it holds pickled Python objects, which could run code; save it again as numbers, "
                "or ids as text: np.save(path, ids.astype(str))"
            ) from None
        raise


def read_rows(
    path: Path, mapped: np.memmap[Any, Any], rows: range, dtype: Any = None
) -> np.ndarray:
    """Read rows of a `.npy` file into fresh memory.

    Not through the map, whose pages would stay resident until the process holds the whole file.
    """
    row_items = int(np.prod(mapped.shape[1:]))
    flat = patiently(
        lambda: np.fromfile(
            path,
            dtype=mapped.dtype,
            count=len(rows) * row_items,
            offset=mapped.offset + rows.start * row_items * mapped.itemsize,
        ),
        path,
    )
    native = mapped.dtype.newbyteorder("=") if dtype is None else dtype
    return flat.reshape(len(rows), *mapped.shape[1:]).astype(native, copy=False)


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bfloat16:
            value = value.float()  # NumPy has no bfloat16; float32 represents it exactly
        return np.asarray(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        return value
    raise ValueError(f"{name} must be a tensor or an array, got {type(value).__name__}")


def check_features(name: str, array: np.ndarray) -> np.ndarray:
    """Return `array` if it is a valid array of features; `name` is for the error."""
    if array.dtype.name not in _FEATURE_DTYPES:
        raise ValueError(f"{name} must be {', '.join(_FEATURE_DTYPES)}, got {array.dtype}")
    if array.ndim < 2:
        raise ValueError(f"{name} must have shape (N, ...), got {array.shape}")
    return array


def check_labels(name: str, array: np.ndarray, rows: int) -> np.ndarray:
    """Return `array` if it is a valid array of labels of `rows` rows; `name` is for the error."""
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(
            f"{name} must have shape ({rows},), one per row of the features, got {array.shape}"
        )
    return array
