"""Where the answers stand in the text that a chat template writes of a conversation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lc_engine.language.rendering.affixes import before_tag, common_prefix, common_suffix
from lc_engine.language.rendering.edges import Traced
from lc_engine.language.rendering.forms import escapes_arguments, forms, writes_parts
from lc_engine.language.rendering.pieces import pieces_of, replaced, without_reasoning
from lc_engine.language.rendering.tracing import origins
from lc_engine.language.rendering.wrappers import ANSWER, find_end, wrapper_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lc_engine.language.rendering.chat_template import ChatTemplate
    from lc_engine.language.rendering.shadow import Shadow, Trace
    from lc_engine.language.rendering.wrappers import Wrapper

# A tag just before a text, and the longest that is looked for.
_OPEN: Final = re.compile(r"([<\[])([^<>\[\]\s/]+)[>\]]\s*\Z")
_LONGEST_TAG: Final = 40


class RenderingError(Exception):
    """The template does not write the row, or none of its answers; the text says which."""


class Located(NamedTuple):
    """A rendered conversation.

    Attributes:
        messages: as the template was given them.
        text: what it writes.
        spans: [start, stop) of the answers in characters, in order, apart from each other.
        notes: what of the answers it does not write, and in which form it was given the calls.
    """

    messages: list[dict[str, Any]]
    text: str
    spans: list[tuple[int, int]]
    notes: list[str]


def locate(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    counted: Collection[int],
    *,
    reasoning: bool = True,
    tools: list[dict[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Located:
    """Render a conversation and locate its answers.

    Args:
        template: writes the text.
        messages: the turns.
        counted: numbers of the assistant's turns that count, each with some text or call.
        reasoning: whether their reasoning counts where it is written.
        tools: of the row.
        variables: of the template, the row's own.

    Raises:
        RenderingError: the template rejects the row, or writes none of its answers.
    """
    job = _Job(template, set(counted), reasoning, tools, variables or {})
    error: Exception | None = None
    second: Located | None = None
    for form in forms(messages):
        if form.has_parts and second is not None and second.spans:
            break
        try:
            text = job.render(form.messages)
        except Exception as raised:  # a template is a program, and may raise anything
            error = error or raised
            continue
        if form.has_parts and writes_parts(form.messages, text):
            continue
        found, complete = job.located(form.messages, text, form.note)
        if complete and found.spans and not escapes_arguments(form.messages, text):
            return found
        if second is None or (found.spans and not second.spans):
            second = found
    if second is None:
        assert error is not None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RenderingError(f"the chat template rejects the row: {reason}")
    if not second.spans:
        raise RenderingError(", ".join(second.notes))
    return second


class _Job:
    """One row and how it is rendered."""

    def __init__(
        self,
        template: ChatTemplate,
        counted: set[int],
        reasoning: bool,
        tools: list[dict[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> None:
        self.template, self.counted, self.reasoning = template, counted, reasoning
        self.tools, self.variables = tools, variables

    def render(self, messages: list[dict[str, Any]]) -> str:
        return self.template.render(messages, self.tools, self.variables)

    def located(self, messages: list[dict[str, Any]], text: str, note: str) -> tuple[Located, bool]:
        """Return the answers, and whether the template writes every turn's calls."""
        notes = [note] if note else []
        traced = self._traced(messages, text)
        if traced is None:
            spans, missing = self._by_prefixes(messages, text)
            said = "".join(text[a:b] for a, b in spans)
            complete = all(name in said for name in self._called(messages))
            return Located(messages, text, spans, notes + missing), complete
        spans = [
            span for turn in sorted(self.counted) for span in self._spans(turn, messages, traced)
        ]
        missing, complete = self._missing(traced)
        return Located(messages, text, spans, notes + missing), complete

    def _traced(self, messages: list[dict[str, Any]], text: str) -> Traced | None:
        """Return the origins of the text's characters, or None if the template hides them."""
        everything = pieces_of(messages)
        answers = [piece for piece in everything if piece.turn in self.counted]
        words, tags = self.template.strings, self.template.tags
        ways = [(everything, tags), (answers, tags), (answers, words)]
        found = origins(self.render, messages, text, ways)
        if found is None:
            return None
        shadow, trace = found
        return Traced(text, *found, *self._bare(messages, *found), trace.written(shadow))

    def _bare(
        self, messages: list[dict[str, Any]], shadow: Shadow, trace: Trace
    ) -> tuple[str, Trace | None]:
        """Render the stand-ins without white space at the ends of texts, if there is any."""
        if all(piece.text == piece.text.strip() for piece in shadow.pieces):
            return "", None
        texts = [text.strip() for text in shadow.texts]
        try:
            bare = self.render(replaced(messages, shadow.pieces, texts))
        except Exception:  # a template is a program, and may raise anything
            return "", None
        order = shadow.order(bare)
        return bare, order if np.array_equal(order.source, trace.source) else None

    def _spans(
        self, turn: int, messages: list[dict[str, Any]], traced: Traced
    ) -> list[tuple[int, int]]:
        shadow, trace = traced.shadow, traced.trace
        own = traced.written.of(turn, reasoning=self.reasoning)
        if not len(own):
            return []
        # Apart where something else of the row lies between, such as reasoning that does not count.
        every = own if self.reasoning else traced.written.of(turn)
        other = ~shadow.marked(trace, own)[trace.source]
        runs = np.split(own, np.flatnonzero(np.diff(np.cumsum(other)[own])) + 1)
        spans = [(traced.start(run[0], self.reasoning), traced.stop(run[-1])) for run in runs]
        if not self._is_plain(turn, every, traced, spans):
            wrapper = wrapper_of(
                self.template,
                _written(messages[turn], turn, traced),
                reasoning=self.reasoning,
                tools=self.tools,
                variables=self.variables,
            )
            if wrapper is not None:
                spans = [
                    _wrapped(span, run, wrapper, traced)
                    for span, run in zip(spans, runs, strict=True)
                ]
        return [
            _with_tag(span, traced.text) if shadow.is_reasoning(int(trace.source[run[0]])) else span
            for span, run in zip(spans, runs, strict=True)
        ]

    def _is_plain(
        self, turn: int, written: np.ndarray, traced: Traced, spans: list[tuple[int, int]]
    ) -> bool:
        """Return whether a turn is only a text that stands there as it is."""
        shadow, trace = traced.shadow, traced.trace
        first = shadow.piece(int(trace.source[written[0]]))
        if first.path[0] != "content" or len(spans) > 1:
            return False
        if shadow.piece(int(trace.source[written[-1]])) is not first:
            return False
        start, stop = spans[0]
        said = traced.text[start:stop].strip()
        text = first.text if self.reasoning else first.text[first.reasoning :]
        return said in (text.strip(), first.text[first.reasoning :].strip())

    def _missing(self, traced: Traced) -> tuple[list[str], bool]:
        """Return a note on texts that the template does not write, and whether it writes calls."""
        shadow = traced.shadow
        written = shadow.marked(traced.trace)[shadow.slots]
        if written.all():
            return [], True
        found: dict[tuple[int, str], list[int]] = {}
        for number, piece in enumerate(shadow.pieces):
            if piece.is_call and piece.path[-1] == "id":  # for the trainer's tools, not the model
                continue
            begin, stop = int(shadow.starts[number]), int(shadow.starts[number + 1])
            middle = begin + piece.reasoning
            for kind, a, b in (
                ("reasoning", begin, middle),
                ("calls" if piece.is_call else "text", middle, stop),
            ):
                inside = slice(*np.searchsorted(shadow.slots, (a, b)))
                counts = found.setdefault((piece.turn, kind), [0, 0])
                counts[0] += int(written[inside].sum())
                counts[1] += inside.stop - inside.start
        absent = [
            f"{'part of ' if has else ''}the {kind} of turn {turn + 1}"
            for (turn, kind), (has, asked) in found.items()
            if has < asked and turn in self.counted and (self.reasoning or kind != "reasoning")
        ]
        complete = all(
            has or not asked for (_, kind), (has, asked) in found.items() if kind == "calls"
        )
        return [f"the template does not write {', '.join(absent)}"] if absent else [], complete

    def _called(self, messages: list[dict[str, Any]]) -> list[str]:
        """Return the names of the functions that the counted turns call."""
        return [
            piece.text
            for piece in pieces_of(messages)
            if piece.turn in self.counted
            and piece.is_call
            and piece.path[-1] == "name"
            and "arguments" not in piece.path
        ]

    def _by_prefixes(
        self, messages: list[dict[str, Any]], text: str
    ) -> tuple[list[tuple[int, int]], list[str]]:
        """Locate answers by what the text begins with: the conversation up to each.

        For templates that change texts beyond recognition.
        """
        spans, absent = [], []
        for turn in sorted(self.counted):
            span = self._by_prefix(messages[: turn + 1], text)
            if span is None:
                absent.append(f"turn {turn + 1}")
            else:
                spans.append(span)
        what = f"the template changes the texts, so {', '.join(absent)} cannot be located"
        return spans, [what] if absent else []

    def _by_prefix(self, messages: list[dict[str, Any]], text: str) -> tuple[int, int] | None:
        answer = messages[-1]
        if not self.reasoning and without_reasoning(answer) != answer:
            return None
        plain = [*messages[:-1], {"role": "assistant", "content": ANSWER}]
        try:
            whole, other = self.render(messages), self.render(plain)
        except Exception:  # a template is a program, and may raise anything
            return None
        start = before_tag(whole, common_prefix(whole, other), 0)
        stop = before_tag(whole, len(whole) - common_suffix(whole[start:], other), start)
        return (start, stop) if start < stop <= common_prefix(whole, text) else None


def _wrapped(
    span: tuple[int, int], run: np.ndarray, wrapper: Wrapper, traced: Traced
) -> tuple[int, int]:
    """Return the span of a run of a turn's characters with what opens and closes it.

    That counts only if the text holds the whole of it: where the template has dropped a part of
    the turn, another thing stands there.
    """
    trace, shadow, text = traced.trace, traced.shadow, traced.text
    start, stop = int(trace.at[run[0]]), int(trace.at[run[-1]]) + 1
    opening = wrapper.before(shadow.key(int(trace.source[run[0]])))
    closing = wrapper.after(shadow.key(int(trace.source[run[-1]])))
    opened = start - len(opening) if text.endswith(opening, 0, start) else start
    if closing and text.startswith(closing, stop):
        closed = stop + len(closing)
    else:
        beyond = int(trace.at[run[-1] + 1]) if run[-1] + 1 < len(trace.at) else len(text)
        closed = stop + (find_end(text[stop:beyond], wrapper.end) or 0)
    return min(span[0], opened), max(span[1], closed)


def _written(message: Mapping[str, Any], turn: int, traced: Traced) -> Mapping[str, Any]:
    """Return a message without those of its texts that the template does not write."""
    shadow, made = traced.shadow, dict(message)
    for number, piece in enumerate(shadow.pieces):
        if piece.turn != turn or piece.is_call:
            continue
        reasoning, rest = shadow.is_written(number, traced.trace)
        if piece.path == ("reasoning_content",):
            if not reasoning:
                del made["reasoning_content"]
        elif piece.path == ("content",):
            begin = 0 if reasoning or not piece.reasoning else piece.reasoning
            made["content"] = piece.text[begin:] if rest else piece.text[begin : piece.reasoning]
    return made


def _with_tag(span: tuple[int, int], text: str) -> tuple[int, int]:
    """Return the span of reasoning with the tag before it whose end tag it holds: <think>."""
    found = _OPEN.search(text, max(0, span[0] - _LONGEST_TAG), span[0])
    if found is None:
        return span
    opened, name = found[1], found[2]
    closed = f"{opened}/{name}{']' if opened == '[' else '>'}"
    return (found.start(), span[1]) if closed in text[slice(*span)] else span
