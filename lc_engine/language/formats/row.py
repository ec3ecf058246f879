"""A conversation from the turns of a row and the fields beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lc_engine.data.readers.records import RowError
from lc_engine.language.conversation import Conversation
from lc_engine.language.formats.content import check_media, text_of
from lc_engine.language.formats.fields import BAD_FIELD, from_json, shown
from lc_engine.language.formats.tools import row_tools
from lc_engine.language.formats.turns import Turns, say


def whole(row: Mapping[str, Any], turns: Turns, *, raw: bool = False) -> Conversation:
    """Return the conversation of a row: its turns, system text, tools and template variables.

    Raises:
        RowError: "not_text", the row has images, videos or sounds; "bad_field", a system text,
            tools or chat_template_kwargs that are none.
    """
    check_media(row)
    turns = _with_system(row, turns)
    return Conversation(
        messages=turns.messages,
        counts=turns.flags(),
        tools=row_tools(row),
        template_kwargs=_template_kwargs(row),
        raw=raw,
    )


def is_given(value: Any) -> bool:
    """Return whether a field holds something: not null, blank or an empty list."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and not (isinstance(value, (list, tuple)) and not value)


def _with_system(row: Mapping[str, Any], turns: Turns) -> Turns:
    """Put the system text that some formats keep in a field of its own before the turns."""
    if not is_given(row.get("system")):
        return turns
    text = text_of(row["system"], "system", "the row")
    first = turns.messages[0]
    if first["role"] != "system" or not first["content"].strip():
        rest = turns
        if first["role"] == "system":
            rest = Turns(turns.messages[1:], turns.counts[1:])
        return say("system", text) + rest
    if first["content"].strip() != text.strip():
        raise RowError(
            BAD_FIELD, "the row has a field system and a system turn with another text: keep one"
        )
    return turns


def _template_kwargs(row: Mapping[str, Any]) -> dict[str, Any]:
    value = from_json(row.get("chat_template_kwargs"))
    if not is_given(value):
        return {}
    if not isinstance(value, Mapping):
        raise RowError(
            BAD_FIELD, f"chat_template_kwargs must be an object or JSON of one, got {shown(value)}"
        )
    return dict(value)
