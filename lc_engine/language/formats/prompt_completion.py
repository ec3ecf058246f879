"""TRL's prompt and completion: two texts that are joined as they are, or two lists of turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lc_engine.language.formats import alpaca
from lc_engine.language.formats.content import text_of
from lc_engine.language.formats.fields import holds_turns, present
from lc_engine.language.formats.row import is_given, whole
from lc_engine.language.formats.turns import Turns, read_turns, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lc_engine.language.conversation import Conversation

_ANSWERS: Final = ("completion", "response")
# Fields that only a chat template can write, or that TRL's plain texts do not have.
_TEMPLATED: Final = ("system", "history", "tools", "functions", "chat_template_kwargs")


def read(row: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a row; no turn of the prompt counts."""
    asked, answer = present(row, ("prompt",)), present(row, _ANSWERS)
    plain = not holds_turns(row[asked]) and not holds_turns(row[answer])
    prompt = turns_or_text(row, asked, "user")
    prompt = alpaca.history(row) + prompt if plain else prompt.as_context()
    turns = prompt + turns_or_text(row, answer, "assistant")
    return whole(row, turns, raw=plain and answer == "completion" and is_raw(row))


def turns_or_text(row: Mapping[str, Any], name: str, role: str) -> Turns:
    """Return a field's turns, or its text as one turn of this role."""
    if holds_turns(row[name]):
        return read_turns(row[name], name)
    if isinstance(row[name], (list, tuple)) and not row[name]:
        return read_turns(row[name], name)  # says what is missing
    return say(role, text_of(row[name], name, "the row"))


def is_raw(row: Mapping[str, Any]) -> bool:
    """Return whether nothing beside the texts asks for a chat template."""
    return not any(is_given(row.get(name)) for name in _TEMPLATED)
