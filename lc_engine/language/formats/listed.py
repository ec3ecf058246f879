"""`messages` and ShareGPT: a row is a list of turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lc_engine.language.formats.fields import present
from lc_engine.language.formats.row import whole
from lc_engine.language.formats.turns import read_turns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lc_engine.language.conversation import Conversation

TURNS: Final = ("messages", "conversations", "conversation")


def read(row: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a row with turns."""
    name = present(row, TURNS)
    return whole(row, read_turns(row[name], name))
