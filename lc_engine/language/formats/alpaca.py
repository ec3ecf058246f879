"""Alpaca: instruction, input and output, with earlier rounds as `history`.

data-juicer's query and response are the same with other names: its instruction precedes the query
as Alpaca's precedes the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats.content import text_of
from lc_engine.language.formats.fields import BAD_FIELD, from_json, holds_turns, present, shown
from lc_engine.language.formats.row import is_given, whole
from lc_engine.language.formats.turns import Turns, read_turns, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lc_engine.language.conversation import Conversation

_QUERIES: Final = ("instruction",)
_INPUTS: Final = ("input", "query")
_ANSWERS: Final = ("output", "response")


def read(row: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a row with an answer."""
    name = present(row, _ANSWERS)
    return whole(row, asked(row) + say("assistant", text_of(row[name], name, "the row")))


def asked(row: Mapping[str, Any]) -> Turns:
    """Return the earlier rounds and the question: instruction and input, joined by a line break."""
    texts = []
    for names in (_QUERIES, _INPUTS):
        name = next((name for name in names if is_given(row.get(name))), None)
        if name is not None:
            texts.append(text_of(row[name], name, "the row"))
    if not texts:
        name = present(row, (*_QUERIES, *_INPUTS))
        texts.append(text_of(row[name], name, "the row"))
    return history(row) + say("user", "\n".join(texts))


def history(row: Mapping[str, Any]) -> Turns:
    """Return the earlier rounds of a row: pairs of question and answer, or turns.

    Raises:
        RowError: "bad_field", something else.
    """
    rounds = from_json(row.get("history"))
    if not is_given(rounds):
        return Turns()
    if holds_turns(rounds):
        return read_turns(rounds, "history")
    if not isinstance(rounds, (list, tuple)):
        raise RowError(
            BAD_FIELD, f"history must be a list of pairs (question, answer), got {shown(rounds)}"
        )
    turns = Turns()
    for number, pair in enumerate(rounds):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RowError(
                BAD_FIELD,
                f"history[{number}] must be a pair (question, answer), got {shown(pair)}",
            )
        for role, text in zip(("user", "assistant"), pair, strict=True):
            turns += say(role, text_of(text, f"history[{number}]", "the row"))
    return turns
