"""From a row's fields to a conversation, in each format that instruction sets are published in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from lc_engine.data.readers.records import RowError
from lc_engine.language.conversation import Conversation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_Message = dict[str, Any]
Format = Literal["alpaca", "sharegpt", "messages", "prompt_completion"]

MISSING_FIELD: Final = "missing_field"
UNKNOWN_ROLE: Final = "unknown_role"

# The speakers' names in each format, and the roles of chat templates.
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


def detect(row: Any) -> Format:
    """Return the format of a row, detected from the names of its fields.

    Raises:
        ValueError: the fields are of no known format; the text lists them and the formats.
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
        f"the rows have the fields {', '.join(map(str, names)) or 'none'}, which match no known "
        "format: instruction and output (alpaca), conversations with from and value "
        "(sharegpt), messages with role and content (messages), or prompt and completion or "
        "response (prompt_completion)"
    )


def check_format(name: str | None) -> Format | None:
    """Return the name of a format, or None for None.

    Raises:
        ValueError: not a format; the text lists them.
    """
    if name is not None and name not in get_args(Format):
        raise ValueError(f"form must be one of {', '.join(get_args(Format))}, got {name!r}")
    return cast("Format | None", name)


def conversation(row: Any, form: Format) -> Conversation:
    """Return what one row says.

    Args:
        row: the fields by name.
        form: the row's format.

    Raises:
        RowError: "missing_field" or "unknown_role".
    """
    if not isinstance(row, Mapping):
        raise RowError(MISSING_FIELD, f"a row must be an object, got {type(row).__name__}")
    return Conversation(_READERS[form](row))


def _alpaca(row: Mapping[str, Any]) -> list[_Message]:
    instruction = _text(row, ("instruction",))
    context = row.get("input")
    if context is not None and not isinstance(context, str):
        raise RowError(MISSING_FIELD, f"input must be a text, got {type(context).__name__}")
    if context and context.strip():
        instruction = f"{instruction}\n\n{context}"
    return [
        *_system(row),
        _message("user", instruction),
        _message("assistant", _text(row, ("output",))),
    ]


def _prompt_completion(row: Mapping[str, Any]) -> list[_Message]:
    turns = list(_system(row))
    for names, role in ((("prompt",), "user"), (_ANSWER, "assistant")):
        name = _present(row, names)
        if isinstance(row[name], (list, tuple)):
            turns += _turns(row[name], name)
        else:
            turns.append(_message(role, _text(row, (name,))))
    return turns


def _listed(row: Mapping[str, Any]) -> list[_Message]:
    name = _present(row, _TURNS)
    if not isinstance(row[name], (list, tuple)):
        raise RowError(MISSING_FIELD, f"{name} must be a list of turns")
    return [*_system(row), *_turns(row[name], name)]


_READERS: Final[dict[str, Callable[[Mapping[str, Any]], list[_Message]]]] = {
    "alpaca": _alpaca,
    "sharegpt": _listed,
    "messages": _listed,
    "prompt_completion": _prompt_completion,
}


def _message(role: str, content: str) -> _Message:
    return {"role": role, "content": content}


def _system(row: Mapping[str, Any]) -> list[_Message]:
    """Return the system message that some formats keep in a field of its own."""
    text = row.get("system")
    return [_message("system", text)] if isinstance(text, str) and text.strip() else []


def _turns(turns: Any, field: str) -> list[_Message]:
    messages = []
    for number, turn in enumerate(turns):
        where = f"{field}[{number}]"
        if not isinstance(turn, Mapping):
            raise RowError(MISSING_FIELD, f"{where} must have the fields role and content")
        speaker = turn[_present(turn, _SPEAKER, where)]
        role = _ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise RowError(
                UNKNOWN_ROLE, f"{where} has role {speaker!r:.40}; known are {', '.join(_ROLES)}"
            )
        messages.append(_message(role, _text(turn, _TEXT, where)))
    if not messages:
        raise RowError(MISSING_FIELD, f"{field} has no turns")
    return messages


def _present(row: Mapping[str, Any], names: Collection[str], where: str = "the row") -> str:
    """Return the first of these names that the row has a value for."""
    for name in names:
        if row.get(name) is not None:
            return name
    raise RowError(
        MISSING_FIELD,
        f"{where} lacks {' or '.join(names)}; it has {', '.join(map(str, row)) or 'no fields'}",
    )


def _text(row: Mapping[str, Any], names: Collection[str], where: str = "the row") -> str:
    name = _present(row, names, where)
    value = row[name]
    if isinstance(value, (list, tuple)) and all(_is_text_part(part) for part in value):
        return "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise RowError(
            MISSING_FIELD, f"{name} of {where} must be a text, got {type(value).__name__}"
        )
    return value


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)
