"""Rows of `.npy` and `.safetensors` files, a few megabytes at a time."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from lc_engine.data.readers.arrays import open_npy

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 24


def copy_npy(path: Path, kept: NDArray[np.int64], out: Path) -> None:
    """Write some rows of a `.npy` file, in its dtype."""
    rows = open_npy(path)
    with out.open("wb") as file:
        described = {
            "descr": np.lib.format.dtype_to_descr(rows.dtype),
            "fortran_order": False,
            "shape": (len(kept), *rows.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(file, described)
        _copy(rows, kept, file)


def copy_safetensors(path: Path, kept: NDArray[np.int64], rows: int, out: Path) -> None:
    """Write a `.safetensors` file with some rows of each tensor that has a row per row of the data.

    Other tensors and the file's metadata are copied as they are.

    Args:
        path: the file.
        kept: row indices, ascending.
        rows: of the data.
        out: the new file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    mapped = np.memmap(path, np.uint8, "r", 8 + length)
    position, begins = 0, {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        begins[name] = (begin, end, tensor["shape"][:1] == [rows])
        size = end - begin
        if begins[name][2]:
            size = size // max(1, rows) * len(kept)
            tensor["shape"] = [len(kept), *tensor["shape"][1:]]
        tensor["data_offsets"] = [position, position + size]
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the bytes of the tensors begin at a multiple of 8
    with out.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin, end, has_rows in begins.values():
            content = mapped[begin:end]
            if has_rows:
                _copy(content.reshape(rows, -1), kept, file)
            else:
                file.write(content.data)


def _copy(rows: NDArray[Any], kept: NDArray[np.int64], file: IO[bytes]) -> None:
    size = max(1, int(np.prod(rows.shape[1:])) * rows.itemsize)
    step = max(1, _CHUNK_BYTES // size)
    for start in range(0, len(kept), step):
        chosen = np.ascontiguousarray(rows[kept[start : start + step]])
        file.write(chosen.reshape(-1).view(np.uint8).data)
