"""JSON objects that others wrote: read whole, or refused with the name of the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

_REMEDY: Final = "copy or download it again"
# A tokenizer of transformers that has no limit states one of 31 digits.
_MOST_DIGITS: Final = 32


def read_json_object(path: Path, remedy: str = _REMEDY) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: the file.
        remedy: what an error says to do.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not JSON, not an object, or an integer of more than 32 digits.
    """
    return parse_json_object(path.read_bytes(), str(path), remedy)


def parse_json_object(content: bytes, name: str, remedy: str = _REMEDY) -> dict[str, Any]:
    """Return the JSON object that some bytes hold.

    Args:
        content: JSON in UTF-8.
        name: what an error calls it.
        remedy: what an error says to do.

    Raises:
        ValueError: see `read_json_object`.
    """
    if not content.strip():
        raise ValueError(f"{name} is empty: {remedy}")
    try:
        found = json.loads(content, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged, {error or 'nested too deeply'}: {remedy}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} must hold a JSON object, got {type(found).__name__}: {remedy}")
    return found


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"an integer has {len(text)} digits")
    return int(text)
