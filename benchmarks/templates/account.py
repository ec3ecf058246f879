"""An account of which characters of a rendered conversation are its response.

It knows templates as programs only, and shares nothing with lc_engine. Every text of an answer is
rendered again with other letters in their place, and again without the white space at its ends:
what changes in the rendering is what was written of that text. Where a template marks what the
assistant generates (`{% generation %}`), only what it marks is response.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.templates.rendering import (
    RejectedError,
    Renderer,
    arguments_as_objects,
    arguments_as_text,
    contents_as_parts,
)
from benchmarks.templates.rows import counts
from benchmarks.templates.swapping import changed, field_text, fields, swapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.templates.swapping import Field

# What may open or close a text that has been written: <think>, [THINK], <|channel>thought.
_OPENING: Final = re.compile(r"((<[^<>\n]*>\w*|\[[A-Z_]+\])\s*)+$")
_BEGUN: Final = re.compile(r"<[^<>\s]*$")
_BROKEN: Final = re.compile(r"[^<>\s]*>")


class Account(NamedTuple):
    """Which characters of a rendering are the response.

    Attributes:
        text: the rendering, N characters.
        must: (N,) bool, those that are.
        may: (N,) bool, those that may count with them: what the template writes between two texts
            of an answer, and around a call or a reasoning.
        by: "marks" or "offsets".
    """

    text: str
    must: np.ndarray
    may: np.ndarray
    by: str


def accounts(render: Renderer, row: dict[str, Any]) -> list[Account]:
    """Return the accounts of a row that are right, the first of the row as it is.

    Others follow only where the template does not take the row as it is: it raises an error, writes
    nothing of the answers, or gets arguments of calls as text, which it may quote once more.

    Raises:
        RejectedError: the template does not take the row in any form.
    """
    found = []
    reason = ""
    for form in (None, arguments_as_objects, arguments_as_text, contents_as_parts):
        is_needed = not any(one.must.any() for one in found)
        if not is_needed and not (form is arguments_as_objects and _has_text_arguments(row)):
            continue
        try:
            found.append(account(render if form is None else render.in_form(form), row))
        except RejectedError as error:
            reason = reason or str(error)
    if not found:
        raise RejectedError(reason)
    return found


def account(render: Renderer, row: dict[str, Any]) -> Account:
    """Return which characters of a row's rendering are its response.

    Raises:
        RejectedError: the template does not take the row.
    """
    # Null beside a call is the empty text.
    messages = [message | {"content": message["content"] or ""} for message in row["messages"]]
    rendered = _Rendered(render, messages, row.get("tools"))
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    own = {i: rendered.written(i) for i in answers}
    must, may = rendered.nowhere(), rendered.nowhere()
    for i in answers:
        if counts(messages[i]):
            must |= own[i]
            may |= rendered.around(i, own[i])
    for i in answers:
        if not counts(messages[i]):
            may &= ~own[i]
    if rendered.marks:
        marked = rendered.nowhere()
        for start, stop in rendered.marks:
            marked[start:stop] = True
        must, may = must & marked, may & marked
    return Account(rendered.text, must, may | must, "marks" if rendered.marks else "offsets")


class _Rendered:
    """A rendered conversation, and others to compare it with."""

    def __init__(self, render: Renderer, messages: list[dict[str, Any]], tools: Any) -> None:
        self._render = render
        self._messages = messages
        self._tools = tools
        self.text, self.marks = render.marked(messages, tools)

    def nowhere(self) -> np.ndarray:
        return np.zeros(len(self.text), dtype=bool)

    def written(self, i: int) -> np.ndarray:
        """Return which characters (N,) are texts of message i."""
        own = self.nowhere()
        for field in fields(self._messages[i]):
            own |= self._field(i, field)
        return own

    def around(self, i: int, own: np.ndarray) -> np.ndarray:
        """Return which characters (N,) may count with the texts of message i.

        Those between its texts and, of a call or a reasoning, all that a plain answer would lack.
        """
        may = self.nowhere()
        where = np.flatnonzero(own)
        if not len(where):
            return may
        first, last = int(where[0]), int(where[-1]) + 1
        message = self._messages[i]
        has_reasoning = "think>" in message["content"] or message.get("reasoning_content")
        if has_reasoning or message.get("tool_calls"):
            plain = [*self._messages]
            plain[i] = {"role": "assistant", "content": "~"}
            other = self._other(plain)
            if other is None:
                before = self._other(self._messages[:i], prompt=True) or ""
                start, stop = _common(self.text, before), self._end_of_turn(i)
            else:
                start = _common(self.text, other)
                stop = len(self.text) - _common(self.text[::-1], other[::-1])
            # Different tags may begin or end alike.
            if half := _BEGUN.search(self.text, 0, start):
                start = half.start()
            if half := _BROKEN.match(self.text, stop):
                stop = half.end()
            first, last = min(start, first), max(stop, last)
        if has_reasoning and (opening := _OPENING.search(self.text, 0, first)):
            first = opening.start()
        may[first:last] = True
        return may

    def _field(self, i: int, field: Field) -> np.ndarray:
        own = self.nowhere()
        other = self._other(changed(self._messages, i, field, swapped))
        if other is None or len(other) != len(self.text):
            raise RejectedError("other letters of an answer change the length of the rendering")
        value = field_text(self._messages[i], field)
        # A later turn may repeat a text, such as the name of a call beside its result.
        where = _differing(self.text, other)[: len(_differing(value, swapped(value)))]
        if not len(where):
            return own
        own[where] = True
        quoted = json.dumps(value, ensure_ascii=False)
        for before, after in itertools.pairwise(where):
            between = self.text[before : after + 1]
            own[before:after] |= between in value or between in quoted
        if field[0] in ("content", "reasoning_content"):
            self._extend_to_ends(own, i, field, value)
        return own

    def _extend_to_ends(self, own: np.ndarray, i: int, field: Field, value: str) -> None:
        """Add what is written of a text before its first and after its last swapped character."""
        where = np.flatnonzero(own)
        start, stop = int(where[0]), int(where[-1]) + 1
        swaps = _differing(value, swapped(value))
        head, tail = value[: swaps[0]].lstrip(), value[swaps[-1] + 1 :].rstrip()
        # Brackets, for example; a tag may be the template's.
        if head and "<" not in head and self.text.endswith(head, 0, start):
            start -= len(head)
            own[start : start + len(head)] = True
        if tail and self.text.startswith(tail, stop):
            own[stop : stop + len(tail)] = True
            stop += len(tail)
        lead, trail = (
            self._kept_space(i, field, value, strip) for strip in (str.lstrip, str.rstrip)
        )
        own[start - lead : start] = self.text[start - lead : start].isspace()
        own[stop : stop + trail] = self.text[stop : stop + trail].isspace()

    def _kept_space(self, i: int, field: Field, value: str, strip: Callable[[str], str]) -> int:
        """Return how many white-space characters at one end of a text are written."""
        bare = self._other(changed(self._messages, i, field, strip))
        fewer = 0 if bare is None else len(self.text) - len(bare)
        return fewer if 0 <= fewer <= len(value) - len(strip(value)) else 0

    def _end_of_turn(self, i: int) -> int:
        """Return how far the text begins as the conversation up to message i does.

        What a template leaves out of an earlier turn, it may write in the last one.
        """
        message = self._messages[i]
        calls = {name: message[name] for name in ("role", "tool_calls") if name in message}
        forms = (message, message | {"reasoning_content": ""}, calls | {"content": ""})
        ends = [self._other([*self._messages[:i], form]) for form in forms]
        return max((_common(self.text, end) for end in ends if end is not None), default=0)

    def _other(self, messages: list[dict[str, Any]], *, prompt: bool = False) -> str | None:
        try:
            return self._render.text(messages, self._tools, prompt=prompt)
        except RejectedError:
            return None


def _differing(a: str, b: str) -> np.ndarray:
    """Return where two texts of one length differ, ascending."""
    return np.flatnonzero([x != y for x, y in zip(a, b, strict=True)])


def _has_text_arguments(row: dict[str, Any]) -> bool:
    calls = [call for message in row["messages"] for call in message.get("tool_calls", [])]
    return any(isinstance(call["function"]["arguments"], str) for call in calls)


def _common(a: str, b: str) -> int:
    """Return the length of the common prefix of two texts."""
    same = [x == y for x, y in zip(a, b, strict=False)]
    return same.index(False) if False in same else len(same)
