"""Ids of rows: from a file name to an id and back, and lists of ids as lines of text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Characters that end a line or are no text: controls, Unicode's separators, and the surrogates by
# which Python represents bytes that are not UTF-8. The backslash introduces the escapes.
_ESCAPED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]|^\s|\s\Z")
_ESCAPES = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def id_of_name(name: str) -> str:
    r"""Return the id of a row that a file name or key identifies: UTF-8, on one line.

    An ordinary name is its own id. Control characters, line separators, white space at either end
    and bytes that are not UTF-8 are escaped as `\x0a` or `\udce9`, a backslash as `\\`; so two
    names never share an id.
    """
    return _ESCAPED.sub(lambda found: _escape(found.group()), name)


def _escape(character: str) -> str:
    if character == "\\":
        return r"\\"
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def name_of_id(row: str) -> str:
    """Return the name that `id_of_name` was called with."""

    def character(found: re.Match[str]) -> str:
        code = found.group(1) or found.group(2)
        return chr(int(code, 16)) if code else "\\"

    return _ESCAPES.sub(character, row)


def to_id_lines(ids: Iterable[Any]) -> str:
    """Return ids as text, one a line.

    Raises:
        ValueError: an id that a line cannot hold: empty, with a line break or with white space at
            either end, or not UTF-8.
    """
    lines = [str(row) for row in ids]
    for row in lines:
        if row != row.strip() or row.splitlines() != [row] or not _is_utf8(row):
            raise ValueError(
                f"the id {row!r} cannot be a line of a text file: write .npy or .parquet"
            )
    return "".join(f"{row}\n" for row in lines)


def read_id_lines(path: Path) -> list[str]:
    """Return the ids of a text file, one a line; empty lines are skipped.

    Raises:
        ValueError: not UTF-8.
    """
    try:
        return [row for row in path.read_bytes().decode("utf-8-sig").splitlines() if row]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
