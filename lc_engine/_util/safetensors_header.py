"""The header of a `.safetensors` file, checked against the file before any tensor is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lc_engine._util.json_file import parse_json_object

if TYPE_CHECKING:
    from pathlib import Path

# The limit of the format.
_LARGEST_HEADER: Final = 100_000_000

_BYTES: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


class TensorEntry(NamedTuple):
    """Where a tensor lies.

    Attributes:
        dtype: as the format names it, such as "F32".
        shape: of the tensor.
        start: of its bytes, from the beginning of the file.
        stop: behind its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Read the header of a `.safetensors` file.

    Returns:
        The tensors by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or its tensors do not fill it exactly.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_LARGEST_HEADER, size - 8):
            raise ValueError(
                f"{path} is not a .safetensors file, or is truncated: copy or download it again"
            )
        header = parse_json_object(
            file.read(length), f"{path} is not a .safetensors file: its header"
        )
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    end = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != end:
            raise ValueError(
                f"{path} is damaged: its tensors overlap or leave a gap: copy or download it again"
            )
        end = entry.stop
    if end != size:
        what = "is truncated" if end > size else "has bytes that no tensor has"
        raise ValueError(
            f"{path} {what}: its tensors end at byte {end:,} of {size:,}: copy or download it again"
        )
    return entries


def _entry(path: Path, name: str, value: Any, first: int) -> TensorEntry:
    """Return one entry of a header, if its parts agree with each other."""
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or not _are_sizes(shape)
        or not _are_sizes(offsets)
        or len(offsets) != 2
        or offsets[0] > offsets[1]
        or (dtype in _BYTES and offsets[1] - offsets[0] != math.prod(shape) * _BYTES[dtype])
    ):
        raise ValueError(
            f'{path} is damaged: its header says of the tensor "{name[:80]}" what cannot be '
            f"({str(value)[:80]}): copy or download it again"
        )
    return TensorEntry(dtype, tuple(shape), first + offsets[0], first + offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
