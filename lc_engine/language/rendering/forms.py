"""The forms in which calls and contents are given to a chat template."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PARSED: Final = (
    "arguments of calls are given to the template as objects: it would escape or refuse their text"
)
_WRITTEN: Final = "arguments of calls are given to the template as JSON text: it refuses objects"
_IN_PARTS: Final = "contents are given to the template as lists of parts, which it asks for"


class Form(NamedTuple):
    """Messages in one form, and what about it a reader should know ("" if nothing).

    Parts are for templates that write no text: others may write the list itself.
    """

    messages: list[dict[str, Any]]
    note: str
    has_parts: bool = False


def forms(messages: Sequence[Mapping[str, Any]]) -> Iterator[Form]:
    """Yield the forms of a conversation in the order in which they are to be tried.

    Arguments are objects for most templates (as the documentation of `transformers` asks) and JSON
    text for some (as OpenAI writes them); an answer that is only a call has an empty content for
    some and none for others; and templates of models that also see images take contents as lists
    of parts.
    """
    seen: list[list[dict[str, Any]]] = []
    given = [dict(message) for message in messages]
    for change, note in ((None, ""), (_parsed, _PARSED), (_written, _WRITTEN)):
        changed = given if change is None else _with_arguments(given, change)
        for made in (changed, _without_empty(changed)):
            if made not in seen:
                seen.append(made)
                yield Form(made, note)
    for made in seen:
        yield Form([in_parts(message) for message in made], _IN_PARTS, has_parts=True)


def in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its content as a list of one text."""
    if not isinstance(message.get("content"), str):
        return dict(message)
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def escapes_arguments(messages: Sequence[Mapping[str, Any]], rendered: str) -> bool:
    """Return whether a template has written a JSON text of arguments as a JSON string."""
    return any(
        isinstance(arguments, str) and '"' in arguments and _quoted(arguments) in rendered
        for message in messages
        for arguments in _arguments(message)
    )


def writes_parts(messages: Sequence[Mapping[str, Any]], rendered: str) -> bool:
    """Return whether a template has written a content's list of parts, and not its texts."""
    return any(
        str(part) in rendered or _quoted(part) in rendered
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _quoted(text: Any) -> str:
    return json.dumps(text, ensure_ascii=False)


def _arguments(message: Mapping[str, Any]) -> Iterator[Any]:
    for call in message.get("tool_calls") or ():
        if isinstance(call, Mapping):
            function = call.get("function", call)
            if isinstance(function, Mapping):
                yield function.get("arguments")


def _without_empty(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages without the empty content of answers that are only calls."""
    return [
        {name: value for name, value in message.items() if name != "content"}
        if message.get("tool_calls") and not message.get("content")
        else message
        for message in messages
    ]


def _with_arguments(
    messages: Sequence[Mapping[str, Any]], change: Callable[[Any], Any]
) -> list[dict[str, Any]]:
    made = []
    for message in messages:
        calls = copy.deepcopy(message.get("tool_calls"))
        for call in calls or ():
            function = call.get("function", call) if isinstance(call, dict) else None
            if isinstance(function, dict) and "arguments" in function:
                function["arguments"] = change(function["arguments"])
        made.append({**message, "tool_calls": calls} if calls else dict(message))
    return made


def _parsed(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _written(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else _quoted(arguments)
