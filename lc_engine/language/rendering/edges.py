"""Where a text begins and ends among what a template writes around it.

White space at the ends of a text may be stripped by the template, which may also write some of its
own there. A rendering of the texts without it tells the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lc_engine.language.rendering.shadow import Shadow, Trace, Written


class Traced(NamedTuple):
    """A rendered text with the origins of its characters.

    Attributes:
        text: what the template writes of the texts of a row.
        shadow: their pieces.
        trace: the origins.
        bare: what it writes of the stand-ins without white space at their ends.
        bare_trace: the origins of that, the same characters in the same order; None if unknown.
        written: the characters of the trace, each where it is written first.
    """

    text: str
    shadow: Shadow
    trace: Trace
    bare: str
    bare_trace: Trace | None
    written: Written

    def start(self, number: int, from_reasoning: bool) -> int:
        """Return where the text begins whose first written stand-in is the given one.

        Args:
            number: of the stand-in in the trace.
            from_reasoning: whether the text begins with its reasoning, or after it.
        """
        at = int(self.trace.at[number])
        lead, _ = self._around(number)
        core = lead[0 if from_reasoning else self._reasoning(number) :].lstrip()
        if not self.text.endswith(core, 0, at):
            return at
        at -= len(core)
        if lead != core and at and self.text[at - 1].isspace():
            at -= self._blanks(number - 1, number)[1]
        return at

    def stop(self, number: int) -> int:
        """Return where the text ends whose last written stand-in is the given one."""
        at = int(self.trace.at[number]) + 1
        _, trail = self._around(number)
        core = trail.rstrip()
        if not self.text.startswith(core, at):
            return at
        at += len(core)
        if trail != core and self.text[at : at + 1].isspace():
            at += self._blanks(number, number + 1, left_first=True)[0]
        return at

    def _reasoning(self, number: int) -> int:
        return self.shadow.piece(int(self.trace.source[number])).reasoning

    def _around(self, number: int) -> tuple[str, str]:
        """Return what precedes and what follows a character in its piece."""
        source = int(self.trace.source[number])
        text = self.shadow.piece(source).text
        index = self.shadow.index(source)
        return text[:index], text[index + 1 :]

    def _blanks(self, left: int, right: int, *, left_first: bool = False) -> tuple[int, int]:
        """Return how much white space is kept after one stand-in and before the next.

        Where the same characters may be of either, the second gets them, or the first if
        `left_first`.
        """
        if self.bare_trace is None:
            return 0, 0
        trail, lead = "", ""
        here, there = self.trace.at, self.bare_trace.at
        a, b, a_stop, b_stop = 0, 0, len(self.text), len(self.bare)
        if left >= 0:
            trail = self._around(left)[1]
            a, b = int(here[left]) + 1, int(there[left]) + 1
        if right < len(here):
            lead = self._around(right)[0]
            a_stop, b_stop = int(here[right]), int(there[right])
        gap, bare = self.text[a:a_stop], self.bare[b:b_stop]
        before, after = trail.rstrip(), lead.lstrip()
        trailing, leading = trail[len(before) :], lead[: len(lead) - len(after)]
        # Of a text that the template changes at this end, nothing is known there.
        if not bare.startswith(before):
            before = trailing = ""
        if not bare[len(before) :].endswith(after):
            after = leading = ""
        middle = bare[len(before) : len(bare) - len(after)]
        extra = len(gap) - len(bare)
        least, most = max(0, extra - len(leading)), min(len(trailing), extra)
        for x in range(most, least - 1, -1) if left_first else range(least, most + 1):
            y = extra - x
            if gap == before + trailing[:x] + middle + leading[len(leading) - y :] + after:
                return x, y
        return 0, 0
