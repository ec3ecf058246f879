"""A conversation as chat templates take it: what a row says, whatever format it was written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class RowImage(NamedTuple):
    """An image of a row, not yet read.

    Attributes:
        value: a path, a data URI, bytes, a struct of bytes and path, or an image of Pillow.
        where: its place in the row, for error messages.
        folder: that a relative path is relative to.
    """

    value: Any
    where: str
    folder: Path = Path()


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of a row, and what the chat template is given beside them.

    Attributes:
        messages: each with "role" ("system", "user", "assistant" or "tool") and "content", a text;
            where the row has them also "tool_calls" (a list of {"type": "function", "function":
            {"name", "arguments"}}, the arguments as given: an object or JSON text),
            "tool_call_id", "name" and "reasoning_content".
        counts: one per message, False for an assistant turn that a flag of the row makes context;
            None where no turn has a flag.
        tools: JSON schemas of the functions that may be called, or None.
        template_kwargs: further variables of the chat template that the row itself names.
        raw: whether the row is a plain prompt and completion, which are joined as they are: two
            messages, user and assistant, that no template is meant for.
        images: in the order of the messages, whose contents are then lists of parts.
    """

    messages: list[dict[str, Any]]
    counts: list[bool] | None = None
    tools: list[dict[str, Any]] | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    raw: bool = False
    images: tuple[RowImage, ...] = ()
