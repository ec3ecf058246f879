"""The texts that a message holds, each with its place in it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Reasoning at the start of a content, as models write it; some start inside the block, because
# their prompt opens it.
_REASONING: Final = re.compile(
    r"\s*(?:<(?P<tag>think|thinking|reasoning|seed:think)>.*?</(?P=tag)>|\[THINK\].*?\[/THINK\]"
    r"|(?:(?!<think>).)*?</think>)\s*",
    re.DOTALL,
)

# A tag that is not in the block at the start, or not closed.
_TAG: Final = re.compile(r"</?(?:think|thinking|reasoning|seed:think)>|\[/?THINK\]")

Path = tuple[str | int, ...]


class Piece(NamedTuple):
    """A text of a message.

    Attributes:
        turn: number of the message.
        path: keys and indices that lead to the text in the message.
        text: it.
        reasoning: how many of its characters, from the first, are reasoning.
    """

    turn: int
    path: Path
    text: str
    reasoning: int

    @property
    def is_call(self) -> bool:
        """Whether the text belongs to a tool call."""
        return self.path[0] == "tool_calls"


def pieces_of(messages: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """Return the texts of messages in order, those that hold more than white space."""
    return [
        piece
        for turn, message in enumerate(messages)
        for piece in _pieces(turn, message)
        if piece.text.strip()
    ]


def reasoning_length(content: str) -> int:
    """Return how many characters at the start of an assistant's content are reasoning."""
    found = _REASONING.match(content)
    return found.end() if found else 0


def replaced(
    messages: Sequence[Mapping[str, Any]], pieces: Sequence[Piece], texts: Sequence[str]
) -> list[dict[str, Any]]:
    """Return messages with other texts in the place of pieces; the given ones stay as they are."""
    made = [dict(message) for message in messages]
    nested = {(piece.turn, str(piece.path[0])) for piece in pieces if len(piece.path) > 1}
    for turn, name in nested:
        made[turn][name] = copy.deepcopy(made[turn][name])
    for piece, text in zip(pieces, texts, strict=True):
        holder: Any = made[piece.turn]
        for key in piece.path[:-1]:
            holder = holder[key]
        holder[piece.path[-1]] = text
    return made


def without_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return an assistant's message without its reasoning."""
    made = {name: value for name, value in message.items() if name != "reasoning_content"}
    content = made.get("content")
    if isinstance(content, str):
        made["content"] = content[reasoning_length(content) :]
    return made


def unclear_reasoning(messages: Sequence[Mapping[str, Any]], answers: Iterable[int]) -> str:
    """Return why it is not known what of some answers is reasoning, "" if it is.

    A closed block at the start is reasoning; with a tag after that, the rest may be so too.
    """
    for turn in answers:
        content = messages[turn].get("content")
        if not isinstance(content, str):
            continue
        found = _TAG.search(content, reasoning_length(content))
        if found:
            return (
                f"turn {turn + 1} has {found[0]} outside a closed block of reasoning at its start, "
                "so what of it is reasoning is not known: mend the row, or take reasoning=score"
            )
    return ""


def _pieces(turn: int, message: Mapping[str, Any]) -> Iterator[Piece]:
    content, reasoning = message.get("content"), message.get("reasoning_content")
    speaks = message["role"] == "assistant"
    if speaks and isinstance(reasoning, str):
        yield Piece(turn, ("reasoning_content",), reasoning, len(reasoning))
    if isinstance(content, str):
        yield Piece(turn, ("content",), content, reasoning_length(content) if speaks else 0)
    elif isinstance(content, list):
        for number, part in enumerate(content):
            if isinstance(part.get("text"), str):
                told = reasoning_length(part["text"]) if speaks and not number else 0
                yield Piece(turn, ("content", number, "text"), part["text"], told)
    for number, call in enumerate(message.get("tool_calls") or ()):
        yield from _leaves(turn, ("tool_calls", number), call)


def _leaves(turn: int, path: Path, value: Any) -> Iterator[Piece]:
    """Return the texts in a tool call, but the words that every call has."""
    if isinstance(value, str):
        if path[-1] not in ("type", "role"):
            yield Piece(turn, path, value, 0)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(turn, (*path, key), inner)
    elif isinstance(value, list):
        for key, inner in enumerate(value):
            yield from _leaves(turn, (*path, key), inner)
