"""What a template writes around reasoning and calls, as part of an answer.

A turn with reasoning or calls is rendered alone after a question, and so is a plain answer. What
both begin with is the header of a turn, what both end with its end; the rest is the answer, such as
`<think>` and `<tool_call>` with their ends.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from lc_engine.language.rendering.affixes import before_tag, common_prefix, common_suffix
from lc_engine.language.rendering.forms import in_parts
from lc_engine.language.rendering.pieces import pieces_of, reasoning_length
from lc_engine.language.rendering.tracing import origins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lc_engine.language.rendering.chat_template import ChatTemplate
    from lc_engine.language.rendering.shadow import Key

QUESTION: Final = "Hello"
# A plain answer of one character, the last of those for private use.
ANSWER: Final = "\U0010fffd"


class Wrapper:
    """What a template writes around the characters of a turn that it writes.

    Args:
        text: of the turn, from the end of its header to the beginning of its end.
        at: where each of the turn's characters stands in it, rising.
        end: of a turn, after a plain answer.
    """

    def __init__(self, text: str, at: Mapping[Key, int], end: str) -> None:
        keys = [None, *at, None]
        places = [-1, *at.values(), len(text)]
        self._between = {
            (keys[n], keys[n + 1]): text[places[n] + 1 : places[n + 1]] for n in range(len(at) + 1)
        }
        self._next = dict(pairwise(keys))
        self.end = end

    def before(self, first: Key) -> str:
        """Return what opens a turn that begins with a character; "" if that is not known."""
        return self._between.get((None, first), "")

    def after(self, last: Key) -> str:
        """Return what follows a character, up to another of the turn or to the end of the turn."""
        return self._between.get((last, self._next.get(last)), "")


def wrapper_of(
    template: ChatTemplate,
    turn: Mapping[str, Any],
    *,
    reasoning: bool,
    tools: list[dict[str, Any]] | None,
    variables: Mapping[str, Any],
) -> Wrapper | None:
    """Return the wrapper of an assistant's turn; None if the template does not show it.

    Args:
        template: renders the turn.
        turn: the message.
        reasoning: whether its reasoning is part of the answer.
        tools: of the row.
        variables: of the row.
    """
    question: dict[str, Any] = {"role": "user", "content": QUESTION}
    answer = _plain(turn, reasoning)
    if isinstance(turn.get("content"), list):
        question, answer = in_parts(question), in_parts(answer)
    alone, plain = [question, dict(turn)], [question, answer]

    def render(messages: list[dict[str, Any]]) -> str:
        return template.render(messages, tools, variables)

    try:
        text, as_last = render(alone), render(plain)
    except Exception:  # a template is a program, and may raise anything
        return None
    pieces = pieces_of(alone)
    ways = [(pieces, template.tags), (pieces, template.strings)]
    found = origins(render, alone, text, ways)
    if found is None:
        return None
    shadow, trace = found
    written = trace.written(shadow)
    asked, own = written.of(0), written.of(1, reasoning=reasoning)
    if not len(asked) or not len(own):
        return None
    after, first, last = (int(trace.at[n]) for n in (asked[-1], own[0], own[-1]))
    header = common_prefix(text, as_last)
    start = min(before_tag(text, header, after + 1), first) if header > after else first
    rest = text[last + 1 :]
    end = as_last.rpartition(ANSWER)[2]
    if not end.strip():  # a last turn may stay open
        try:
            as_first = render([*plain, question])
        except Exception:  # a template is a program, and may raise anything
            as_first = as_last
        end = _overlap(rest, as_first.rpartition(ANSWER)[2])
    places = {shadow.key(int(trace.source[n])): int(trace.at[n]) - start for n in own}
    return Wrapper(text[start : last + 1 + _end(rest, end)], places, end)


def _overlap(one: str, other: str) -> str:
    """Return the longest end of one text that another begins with."""
    sizes = range(min(len(one), len(other)), 0, -1)
    return next((other[:n] for n in sizes if one.endswith(other[:n])), "")


def _end(rest: str, usual: str) -> int:
    """Return where the end of a turn begins in what follows its texts.

    Args:
        rest: what follows them.
        usual: the end of a turn after a plain answer.
    """
    found = find_end(rest, usual)
    if found is not None:
        return found
    return before_tag(rest, len(rest) - common_suffix(rest, usual), 0)


def find_end(rest: str, usual: str) -> int | None:
    """Return where the usual end of a turn is in a text, or None where it is not."""
    core = usual.strip()
    if not core or core not in rest:
        return None
    found, blank = rest.index(core), usual[: len(usual) - len(usual.lstrip())]
    return found - len(blank) if rest[:found].endswith(blank) else found


def _plain(turn: Mapping[str, Any], reasoning: bool) -> dict[str, Any]:
    """Return a plain answer; with the turn's reasoning where that is no part of the answer."""
    made = {"role": "assistant", "content": ANSWER}
    if not reasoning:
        content = turn.get("content") or ""
        if isinstance(content, list):
            content = "".join(part.get("text") or "" for part in content)
        made["content"] = content[: reasoning_length(content)] + ANSWER
        if "reasoning_content" in turn:
            made["reasoning_content"] = turn["reasoning_content"]
    return made
