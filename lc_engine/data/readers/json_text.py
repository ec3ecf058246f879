"""JSON in files: what is wrong with one that is not JSON, or with lines that are no JSON Lines."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# An ASCII character of two or four bytes at the beginning of a text without a mark.
_WIDE: Final = (
    (re.compile(rb"[\t-~]\0\0\0[\t-~]\0\0\0"), "UTF-32LE"),
    (re.compile(rb"\0\0\0[\t-~]\0\0\0[\t-~]"), "UTF-32BE"),
    (re.compile(rb"[\t-~]\0[\t-~]\0"), "UTF-16LE"),
    (re.compile(rb"\0[\t-~]\0[\t-~]"), "UTF-16BE"),
)
HEAD_BYTES: Final = 8
_LIST: Final = re.compile(rb"\[\s*(\{|\]?\Z)")


def parse_json(content: bytes, path: Path) -> Any:
    """Return the value of a file that holds one JSON value, in UTF-8, UTF-16 or UTF-32.

    Raises:
        ValueError: naming the file, the position and what to do.
    """
    if not content.strip():
        raise ValueError(f"{path} is empty: copy or download it again")
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not {error.encoding.upper()} at byte {error.start}: save it as UTF-8"
        ) from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not {_located(error)}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be parsed") from None
    except ValueError as error:  # an integer of thousands of digits
        raise ValueError(f"{path} is not JSON that can be parsed: {error}") from None


def _located(error: json.JSONDecodeError) -> str:
    where = f"line {error.lineno}, column {error.colno}"
    if error.msg.startswith("Extra data"):
        return (
            f"one JSON value (a second one begins at {where}): a file with a value per line must "
            "be named .jsonl"
        )
    if error.msg.startswith("Unterminated") or not error.doc[error.pos :].strip():
        return (
            f"whole: it ends within a value, at {where}, so it is cut short; copy or download it "
            "again"
        )
    return f"JSON: {error.msg} at {where}"


def check_line_encoding(head: bytes, path: Path) -> None:
    """Raise if the first bytes of JSON Lines are not those of UTF-8.

    Args:
        head: the first HEAD_BYTES, decompressed.
        path: of the file.
    """
    wide = (name for pattern, name in _WIDE if pattern.match(head))
    name = next((name for mark, name in _MARKS if head.startswith(mark)), None) or next(wide, None)
    if name is not None:
        raise ValueError(
            f"{path} is {name}, but JSON Lines are UTF-8: convert it with "
            f"`iconv -f {name} -t UTF-8 {path.name} > new.jsonl`"
        )


def check_first_line(line: bytes, path: Path) -> None:
    """Raise if the first line that is not blank begins a value of several lines, or a list of rows.

    Args:
        line: with or without its end.
        path: of the file.
    """
    line = line.removeprefix(codecs.BOM_UTF8).strip()
    if _LIST.match(line):
        raise ValueError(
            f"{path} is one JSON list, not a value per line: name it .json, or convert it with "
            f"`jq -c '.[]' {path.name} > new.jsonl`"
        )
    if line == b"{":
        raise ValueError(
            f"{path} holds values of several lines, not a value per line: convert it with "
            f"`jq -c . {path.name} > new.jsonl`"
        )
