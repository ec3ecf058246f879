"""Rows of instruction sets as conversations: the forms in which such sets are published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Format = Literal["alpaca", "sharegpt", "messages", "prompt_completion"]

INVALID_JSON: Final = "invalid_json"
MISSING_FIELD: Final = "missing_field"
UNKNOWN_ROLE: Final = "unknown_role"

# What each form calls the speakers, and what chat templates call them.
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "observation": "tool",
}
_SPEAKER: Final = ("role", "from")
_TEXT: Final = ("content", "value")
_TURNS: Final = ("messages", "conversations", "conversation")
_ANSWER: Final = ("completion", "response")


class Message(NamedTuple):
    """One turn; `role` is "system", "user", "assistant" or "tool"."""

    role: str
    content: str


class RowError(ValueError):
    """A row that is no conversation: its status, and a sentence that says what is wrong."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def detect(row: Any) -> Format:
    """Tell the form of a row by the names of its fields.

    Raises:
        ValueError: the fields are of no known form; the text lists them and the forms.
    """
    names = list(row) if isinstance(row, Mapping) else []
    if "messages" in names:
        return "messages"
    if "conversations" in names or "conversation" in names:
        return "sharegpt"
    if "instruction" in names and "output" in names:
        return "alpaca"
    if "prompt" in names and any(name in names for name in _ANSWER):
        return "prompt_completion"
    raise ValueError(
        f"the rows have the fields {', '.join(map(str, names)) or 'none'}, which is no form that "
        "is known: instruction and output (alpaca), conversations with from and value "
        "(sharegpt), messages with role and content (messages), or prompt and completion or "
        "response (prompt_completion)"
    )


def check_format(name: str | None) -> None:
    """Refuse a name that is no form.

    Raises:
        ValueError: listing those there are.
    """
    if name is not None and name not in get_args(Format):
        raise ValueError(f"form must be one of {', '.join(get_args(Format))}, got {name!r}")


def conversation(row: Any, form: Format) -> list[Message]:
    """Read one row.

    Args:
        row: the fields by name.
        form: how they are to be read.

    Returns:
        The turns, in order.

    Raises:
        RowError: "missing_field" or "unknown_role".
    """
    if not isinstance(row, Mapping):
        raise RowError(MISSING_FIELD, f"a row must be an object, this is a {type(row).__name__}")
    return _READERS[form](row)


def _alpaca(row: Mapping[str, Any]) -> list[Message]:
    asked = _text(row, ("instruction",))
    more = row.get("input")
    if more is not None and not isinstance(more, str):
        raise RowError(MISSING_FIELD, f"input must be a text, got {type(more).__name__}")
    if more and more.strip():
        asked = f"{asked}\n\n{more}"
    return [
        *_system(row),
        Message("user", asked),
        Message("assistant", _text(row, ("output",))),
    ]


def _prompt_completion(row: Mapping[str, Any]) -> list[Message]:
    turns = list(_system(row))
    for names, role in ((("prompt",), "user"), (_ANSWER, "assistant")):
        name = _present(row, names)
        if isinstance(row[name], (list, tuple)):
            turns += _turns(row[name], name)
        else:
            turns.append(Message(role, _text(row, (name,))))
    return turns


def _listed(row: Mapping[str, Any]) -> list[Message]:
    name = _present(row, _TURNS)
    if not isinstance(row[name], (list, tuple)):
        raise RowError(MISSING_FIELD, f"{name} must be a list of turns")
    return [*_system(row), *_turns(row[name], name)]


_READERS: Final[dict[str, Callable[[Mapping[str, Any]], list[Message]]]] = {
    "alpaca": _alpaca,
    "sharegpt": _listed,
    "messages": _listed,
    "prompt_completion": _prompt_completion,
}


def _system(row: Mapping[str, Any]) -> list[Message]:
    """Give the system text that some forms keep in a field of its own."""
    said = row.get("system")
    return [Message("system", said)] if isinstance(said, str) and said.strip() else []


def _turns(turns: Any, where: str) -> list[Message]:
    found = []
    for number, turn in enumerate(turns):
        place = f"{where}[{number}]"
        if not isinstance(turn, Mapping):
            raise RowError(MISSING_FIELD, f"{place} must have the fields role and content")
        speaker = turn[_present(turn, _SPEAKER, place)]
        role = _ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise RowError(
                UNKNOWN_ROLE, f"{place} has role {speaker!r:.40}; known are {', '.join(_ROLES)}"
            )
        found.append(Message(role, _text(turn, _TEXT, place)))
    if not found:
        raise RowError(MISSING_FIELD, f"{where} has no turns")
    return found


def _present(row: Mapping[str, Any], names: Collection[str], place: str = "the row") -> str:
    for name in names:
        if row.get(name) is not None:
            return name
    raise RowError(
        MISSING_FIELD,
        f"{place} lacks {' or '.join(names)}; it has {', '.join(map(str, row)) or 'no fields'}",
    )


def _text(row: Mapping[str, Any], names: Collection[str], place: str = "the row") -> str:
    name = _present(row, names, place)
    value = row[name]
    if isinstance(value, (list, tuple)) and all(_is_text_part(part) for part in value):
        return "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise RowError(
            MISSING_FIELD, f"{name} of {place} must be a text, got {type(value).__name__}"
        )
    return value


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)
