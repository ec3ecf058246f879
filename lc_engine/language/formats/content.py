"""What a turn says: a text, or parts of which only texts can be scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sized
from typing import Any, Final

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats.fields import MISSING_FIELD, shown

NOT_TEXT: Final = "not_text"

# Columns of a row that hold what its texts refer to.
_MEDIA: Final = ("image", "images", "video", "videos", "audio", "audios")
# What stands for them in a text of ShareGPT; with a closing tag it is markup.
_PLACEHOLDERS: Final = ("image", "video", "audio")
# Parts that are texts, and the field that holds the text.
_TEXTS: Final = ("text", "input_text", "output_text")
_REASONING: Final = ("thinking", "reasoning")


def check_media(row: Mapping[str, Any]) -> None:
    """Raise RowError "not_text" if a column of the row holds images, videos or sounds."""
    for name in _MEDIA:
        value = row.get(name)
        if value is not None and not (isinstance(value, Sized) and not len(value)):
            raise RowError(NOT_TEXT, f"the row has a value for {name}, and only text is scored")


def check_placeholders(text: str, where: str) -> None:
    """Raise RowError "not_text" if a text of ShareGPT stands around an image, video or sound."""
    for name in _PLACEHOLDERS:
        if f"<{name}>" in text and f"</{name}>" not in text:
            raise RowError(
                NOT_TEXT, f"{where} has the placeholder <{name}>, and only text is scored"
            )


def text_of(value: Any, name: str, where: str) -> str:
    """Return a text, or the joined text parts of a list.

    Raises:
        RowError: "not_text", a part that is none; "missing_field", another type.
    """
    said, reasoning = said_and_reasoned(value, name, where)
    if reasoning:
        raise RowError(NOT_TEXT, f"{where} has a part of type thinking outside an assistant turn")
    return said


def said_and_reasoned(value: Any, name: str, where: str) -> tuple[str, str]:
    """Return what a turn says, and the reasoning that its parts hold, "" for none.

    Raises:
        RowError: as of `text_of`.
    """
    if isinstance(value, str):
        return value, ""
    if not isinstance(value, (list, tuple)):
        raise RowError(
            MISSING_FIELD, f"{name} of {where} must be a text, got {type(value).__name__}"
        )
    texts: tuple[list[str], list[str]] = ([], [])
    for part in value:
        text, is_reasoning = _part(part, name, where)
        texts[is_reasoning].append(text)
    return "".join(texts[False]), "\n".join(texts[True])


def tool_result(value: Any, name: str, where: str) -> str:
    """Return what a tool answered: a text or text parts; an object or other list as JSON."""
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        typed = (isinstance(part, Mapping) and ("type" in part or "text" in part) for part in value)
        if not all(typed):
            return json.dumps(value, ensure_ascii=False)
    return text_of(value, name, where)


def _part(part: Any, name: str, where: str) -> tuple[str, bool]:
    """Return the text of a part, and whether it is reasoning."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in (None, *_TEXTS) and isinstance(part.get("text"), str):
        return part["text"], False
    if isinstance(part, Mapping) and kind in _REASONING:
        value = next((part[key] for key in (kind, "text") if part.get(key) is not None), "")
        return said_and_reasoned(value, name, where)[0], True
    what = f"a part of type {kind}" if kind is not None else f"a part that is {shown(part)}"
    raise RowError(NOT_TEXT, f"{name} of {where} has {what}, and only text is scored")
