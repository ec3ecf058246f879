"""Other letters in the place of an answer's own, at the same length."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Name of a text of a message, and of a call's texts which call.
    Field = tuple[str, int]

_TAG: Final = re.compile(r"<[^<>]*>")
# Templates look for none of these, and JSON escapes none.
_OTHER: Final = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?*#",
    "bcdefghijklmnopqrstuvwxyzaBCDEFGHIJKLMNOPQRSTUVWXYZA1234567892,;:!?.#*",
)


def fields(message: dict[str, Any]) -> Iterator[Field]:
    """Return the texts of a message that are not empty."""
    for name in ("reasoning_content", "content"):
        if (message.get(name) or "").strip():
            yield name, 0
    for j in range(len(message.get("tool_calls", []))):
        yield "name", j
        yield "arguments", j


def field_text(message: dict[str, Any], field: Field) -> str:
    """Return a text of a message; arguments as JSON."""
    name, j = field
    if name not in ("name", "arguments"):
        return str(message[name])
    value = message["tool_calls"][j]["function"][name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def changed(
    messages: list[dict[str, Any]], i: int, field: Field, change: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Return the messages with a change to one text of message i."""
    copied = copy.deepcopy(messages)
    name, j = field
    holder = copied[i]
    if name in ("name", "arguments"):
        holder = holder["tool_calls"][j]["function"]
    if name == "arguments" and isinstance(holder[name], str):
        holder[name] = json.dumps(_mapped(json.loads(holder[name]), change), ensure_ascii=False)
    else:
        holder[name] = _mapped(holder[name], change)
    return copied


def swapped(text: str) -> str:
    """Put another character in place of every letter, figure and stop outside tags."""
    parts, end = [], 0
    for tag in _TAG.finditer(text):
        parts += [_swapped_all(text[end : tag.start()]), tag[0]]
        end = tag.end()
    return "".join([*parts, _swapped_all(text[end:])])


def _swapped_all(text: str) -> str:
    return "".join(
        c.translate(_OTHER) if c.isascii() else c if c.isspace() else "è" if c == "é" else "é"
        for c in text
    )


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    return _number(str(value), change)


def _number(text: str, change: Callable[[str], str]) -> Any:
    # The point of a fraction stays.
    return json.loads("".join(change(c) if c.isdigit() else c for c in text))
