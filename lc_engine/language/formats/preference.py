"""Preference pairs: a chosen and a rejected answer to one prompt.

TRL's three forms (prompt, chosen and rejected as texts or as lists of turns; both lists whole, with
the prompt as their common beginning) and LLaMA-Factory's two (Alpaca's fields with two texts; turns
with two single turns).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats import alpaca
from lc_engine.language.formats.content import text_of
from lc_engine.language.formats.fields import (
    BAD_FIELD,
    MISSING_FIELD,
    SPEAKER,
    from_json,
    holds_turns,
    present,
    shown,
)
from lc_engine.language.formats.listed import TURNS
from lc_engine.language.formats.prompt_completion import is_raw, turns_or_text
from lc_engine.language.formats.row import is_given, whole
from lc_engine.language.formats.turns import Turns, read_turns, say

if TYPE_CHECKING:
    from lc_engine.language.conversation import Conversation

_CHOSEN: Final = "chosen"
_REJECTED: Final = "rejected"
_BOTH: Final = (_CHOSEN, _REJECTED)


def read(row: Mapping[str, Any]) -> tuple[Conversation, Conversation]:
    """Return the chosen and the rejected conversation of a row; only the answers count.

    Raises:
        RowError: as of the other formats; "missing_field" where there is no prompt.
    """
    for name in _BOTH:
        present(row, (name,))
    answers = [_answer(row, name) for name in _BOTH]
    prompt = _prompt(row)
    raw = False
    if prompt is None or _includes(answers, prompt):
        if all(isinstance(answer, str) for answer in answers):
            prompt, answers = _split_texts(row, *answers)
            raw = is_raw(row)
        else:
            prompt, answers = _split_turns(row, *answers)
    else:
        _check_begins(answers)
        plain = all(isinstance(answer, str) for answer in answers)
        raw = plain and "prompt" in row and not holds_turns(row["prompt"]) and is_raw(row)
        answers = [say("assistant", one) if isinstance(one, str) else one for one in answers]
    context = prompt.as_context()
    chosen, rejected = (whole(row, context + answer, raw=raw) for answer in answers)
    return chosen, rejected


def _answer(row: Mapping[str, Any], name: str) -> Any:
    """Return an answer as turns, a single turn included, or as text."""
    value = row[name]
    single = from_json(value)
    if isinstance(single, Mapping) and any(isinstance(single.get(key), str) for key in SPEAKER):
        return read_turns([single], name)
    if holds_turns(value):
        return read_turns(value, name)
    return text_of(value, name, "the row")


def _prompt(row: Mapping[str, Any]) -> Turns | None:
    """Return the turns before the answers, or None where the answers hold them."""
    if any(is_given(row.get(name)) for name in ("instruction", "input", "query")):
        return alpaca.asked(row)
    if row.get("prompt") is not None:
        return alpaca.history(row) + turns_or_text(row, "prompt", "user")
    if is_given(row.get("question")):
        return alpaca.history(row) + say("user", text_of(row["question"], "question", "the row"))
    for name in TURNS:
        if row.get(name) is not None:
            return read_turns(row[name], name)
    return None


def _includes(answers: list[Any], prompt: Turns) -> bool:
    """Return whether both answers are whole conversations that repeat the prompt."""
    for answer in answers:
        if not isinstance(answer, Turns):
            return False
        said = [message for message in answer.messages if message["role"] != "system"]
        asked = [message for message in prompt.messages if message["role"] != "system"]
        if not asked or said[: len(asked)] != asked or len(said) == len(asked):
            return False
    return True


def _check_begins(answers: list[Any]) -> None:
    """Raise RowError "bad_field" if answers to a prompt begin with another question."""
    for name, answer in zip(_BOTH, answers, strict=True):
        if isinstance(answer, Turns) and answer.messages[0]["role"] in ("system", "user"):
            raise RowError(
                BAD_FIELD,
                f"{name} begins with a turn of the {answer.messages[0]['role']} and does not "
                "repeat the prompt, which the row has too: keep the whole conversations, or the "
                "prompt and the answers",
            )


def _split_turns(row: Mapping[str, Any], *answers: Any) -> tuple[Turns, list[Any]]:
    """Split two whole conversations after the turns that they share, as TRL does."""
    for name, answer in zip(_BOTH, answers, strict=True):
        if not isinstance(answer, Turns):
            raise RowError(
                MISSING_FIELD,
                f"{name} must be a list of turns like the other answer, got {shown(row[name])}",
            )
    first, second = (answer.messages for answer in answers)
    shortest = min(len(first), len(second)) - 1
    shared = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    prompt = Turns(first[:shared], answers[0].counts[:shared])
    rest = [Turns(answer.messages[shared:], answer.counts[shared:]) for answer in answers]
    return prompt, rest


def _split_texts(row: Mapping[str, Any], *answers: str) -> tuple[Turns, list[Any]]:
    """Split two whole texts after the characters that they share, as TRL does.

    Raises:
        RowError: "missing_field", they share none, so the prompt is elsewhere or nowhere.
    """
    shortest = min(map(len, answers)) - 1
    shared = next((i for i in range(shortest) if answers[0][i] != answers[1][i]), shortest)
    if shared > 0 and answers[0][shared - 1] == " " and answers[0][shared] != answers[1][shared]:
        shared -= 1  # the space before a word is part of its token
    if shared <= 0:
        raise RowError(
            MISSING_FIELD,
            "chosen and rejected begin differently, and the row has no prompt; it has "
            f"{', '.join(map(str, row))}: name the question prompt",
        )
    return say("user", answers[0][:shared]), [say("assistant", one[shared:]) for one in answers]
