"""A list of turns as messages of a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats.content import (
    check_placeholders,
    said_and_reasoned,
    text_of,
    tool_result,
)
from lc_engine.language.formats.fields import (
    BAD_FIELD,
    MISSING_FIELD,
    SPEAKER,
    TEXT,
    present,
    shown,
    turn_list,
)
from lc_engine.language.formats.flags import counts_of, other_fields
from lc_engine.language.formats.tools import called, tool_calls

Message = dict[str, Any]

UNKNOWN_ROLE: Final = "unknown_role"
CALLS: Final = "calls"  # a turn that is nothing but JSON of calls

# The speakers' names in each format, and the roles of chat templates.
ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": CALLS,
    "tool_call": CALLS,
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")


@dataclass
class Turns:
    """Messages, and per message what its flags say: False is context, None has no flag."""

    messages: list[Message] = field(default_factory=list)
    counts: list[bool | None] = field(default_factory=list)

    def __add__(self, later: Turns) -> Turns:
        return Turns(self.messages + later.messages, self.counts + later.counts)

    def as_context(self) -> Turns:
        """Return the same turns, of which no answer counts."""
        answers = (message["role"] == "assistant" for message in self.messages)
        return Turns(
            self.messages,
            [
                False if is_answer else count
                for is_answer, count in zip(answers, self.counts, strict=True)
            ],
        )

    def flags(self) -> list[bool] | None:
        """Return which messages count, None where no flag says anything."""
        if all(count is None for count in self.counts):
            return None
        return [count is not False for count in self.counts]


def say(role: str, content: str) -> Turns:
    """Return one turn without a flag."""
    return Turns([{"role": role, "content": content}], [None])


def read_turns(value: Any, name: str) -> Turns:
    """Return the turns that a field holds: a list, JSON text of one, or a struct of lists.

    Raises:
        RowError: "missing_field", "bad_field", "unknown_role" or "not_text".
    """
    turns, before = Turns(), ""
    for number, turn in enumerate(turn_list(value, name)):
        where = f"{name}[{number}]"
        if not isinstance(turn, Mapping):
            raise RowError(
                MISSING_FIELD, f"{where} must have the fields role and content, got {shown(turn)}"
            )
        role = _role(turn, where)
        count = counts_of(turn, where)
        message = _message(turn, role, where)
        # Several calls at once are turns of their own in ShareGPT.
        if role == before == CALLS and count == turns.counts[-1] and not message["content"]:
            last = turns.messages[-1]
            turns.messages[-1] = last | {"tool_calls": last["tool_calls"] + message["tool_calls"]}
        else:
            turns.messages.append(message)
            turns.counts.append(count)
        before = role
    return turns


def _role(turn: Mapping[str, Any], where: str) -> str:
    speaker = turn[present(turn, SPEAKER, where)]
    role = ROLES.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    if role is None:
        raise RowError(
            UNKNOWN_ROLE, f"{where} has role {speaker!r:.40}; known are {', '.join(ROLES)}"
        )
    return role


def _message(turn: Mapping[str, Any], role: str, where: str) -> Message:
    """Return a turn as a message: its texts, its calls, and what only the template knows."""
    if role == CALLS:
        text, calls = called(turn[present(turn, TEXT, where)], where)
        return {"role": "assistant", "content": text, "tool_calls": calls, **other_fields(turn)}
    message: Message = {"role": role}
    said = _said(turn, role, where)
    message["content"] = said.text
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        message["tool_calls"] = said.calls
    for name in ("name", "tool_call_id"):
        if turn.get(name) is not None:
            message[name] = turn[name]
    return message | other_fields(turn)


class _Said(NamedTuple):
    text: str
    reasoning: str
    calls: list[dict[str, Any]]


def _said(turn: Mapping[str, Any], role: str, where: str) -> _Said:
    calls: list[dict[str, Any]] = []
    reasoned = ""
    if role == "assistant":
        calls = _calls(turn, where)
        reasoned = _reasoning(turn, where)
        if (calls or reasoned) and all(turn.get(name) is None for name in TEXT):
            return _Said("", reasoned, calls)
    elif turn.get("tool_calls"):
        raise RowError(BAD_FIELD, f"{where} has tool_calls, which only an assistant makes")
    name = present(turn, TEXT, where)
    if role == "tool":
        return _Said(tool_result(turn[name], name, where), "", [])
    if role != "assistant":
        text = text_of(turn[name], name, where)
        if name == "value":
            check_placeholders(text, where)
        return _Said(text, "", [])
    text, in_parts = said_and_reasoned(turn[name], name, where)
    return _Said(text, reasoned or in_parts, calls)


def _calls(turn: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the calls of a turn: `tool_calls`, or `function_call`, the older form."""
    for name in ("tool_calls", "function_call"):
        value = turn.get(name)
        if value is not None and not (isinstance(value, (str, list, tuple)) and not value):
            return tool_calls(value, f"{name} of {where}")
    return []


def _reasoning(turn: Mapping[str, Any], where: str) -> str:
    for name in _REASONING:
        if turn.get(name) is not None:
            return text_of(turn[name], name, where)
    return ""
