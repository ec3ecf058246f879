"""The origins of a rendered text's characters, by the first way that a template lets pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lc_engine.language.rendering.pieces import replaced
from lc_engine.language.rendering.shadow import Shadow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from lc_engine.language.rendering.pieces import Piece
    from lc_engine.language.rendering.shadow import Trace

    # Renders messages; a template is a program, and may raise anything.
    Render = Callable[[list[dict[str, Any]]], str]


def origins(
    render: Render,
    messages: Sequence[dict[str, Any]],
    text: str,
    ways: Iterable[tuple[Sequence[Piece], Collection[str]]],
) -> tuple[Shadow, Trace] | None:
    """Return where the characters of a text come from, or None if the template hides it.

    Args:
        render: writes the text of messages.
        messages: whose text it is.
        text: what is written of them.
        ways: which pieces are replaced and which words in them are kept, in the order of trial.
    """
    for pieces, kept in ways:
        shadow = Shadow(pieces, kept, text)
        try:
            other = render(replaced(messages, pieces, shadow.texts))
        except Exception:  # the template misses what it looks for in a text
            continue
        trace = shadow.trace(text, other)
        if trace is not None:
            return shadow, trace
    return None
