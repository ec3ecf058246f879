"""Which character of a row each character of a rendered text comes from.

The row is rendered a second time, with a character of its own in the place of each character of its
texts: code points of the two planes for private use. A template passes them on as it passes on any
letter, so wherever the two renderings differ the second one names the character's origin. The
renderings must otherwise be equal and each origin hold the right character; else nothing is said.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lc_engine.language.rendering.pieces import Path

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lc_engine.language.rendering.pieces import Piece

# A character of a turn: the path of its text, and its number from the end of that.
Key = tuple[Path, int]

_FIRST: Final = 0xF0000
_PRIVATE: Final = np.arange(_FIRST, 0x110000, dtype=np.uint32)
# Templates strip white space, and JSON and HTML escape these: they stay as they are.
_STAYING: Final = np.array(
    [chr(c).isspace() or c < 0x20 or chr(c) in "\"'\\<>&\x7f" for c in range(0x3001)] + [False]
)
_BLANK: Final = np.array([chr(c).isspace() for c in range(0x3001)] + [False])


class Trace(NamedTuple):
    """Origins of characters.

    Attributes:
        at: (M,) positions in the rendered text, rising.
        source: (M,) which character of the joined pieces stands there.
    """

    at: np.ndarray
    source: np.ndarray

    def written(self, shadow: Shadow) -> Written:
        """Return the characters of a trace, each where it is written first."""
        first = np.sort(np.unique(self.source, return_index=True)[1])
        source = self.source[first]
        owner = shadow.owner(source)
        turns = np.array([piece.turn for piece in shadow.pieces])
        ends = np.array([piece.reasoning for piece in shadow.pieces]) + shadow.starts[:-1]
        return Written(first, turns[owner], source < ends[owner])


class Written(NamedTuple):
    """Characters of a trace, each where it is written first.

    Attributes:
        number: (N,) in the trace, rising.
        turn: (N,) number of the message that each is of.
        is_reasoning: (N,) whether it is of reasoning.
    """

    number: np.ndarray
    turn: np.ndarray
    is_reasoning: np.ndarray

    def of(self, turn: int, *, reasoning: bool = True) -> np.ndarray:
        """Return the numbers of a turn's characters, with those of its reasoning or without."""
        own = self.turn == turn
        return np.asarray(self.number[own if reasoning else own & ~self.is_reasoning])


class Shadow:
    """Pieces with a character of its own in the place of each character.

    Args:
        pieces: the texts, none of them blank.
        kept: words that the template may look for, which stay as they are.
        rendered: what the template writes of them, of which no character is taken to stand in.
    """

    def __init__(
        self, pieces: Sequence[Piece], kept: Collection[str] = (), rendered: str = ""
    ) -> None:
        self.pieces = pieces
        # (P + 1,) where each piece begins among the characters of all.
        self.starts = np.cumsum([0, *(len(piece.text) for piece in pieces)])
        self._begins: list[int] = self.starts.tolist()
        whole = "".join(piece.text for piece in pieces)
        self._characters = _codes(whole)
        chosen = ~_STAYING[np.minimum(self._characters, 0x3001)]
        for found in _occurrences(whole, kept):
            chosen[found] = False
        free = _free(rendered + whole)
        # (S,) the characters that have a stand-in, and the stand-ins, both rising.
        self.slots = _rationed(np.flatnonzero(self._whole_ones(chosen)), self.starts, len(free))
        self._stand_ins = free[: len(self.slots)]
        shadow = self._characters.copy()
        shadow[self.slots] = self._stand_ins
        made = shadow.tobytes().decode("utf-32-le", "surrogatepass")
        self.texts = [made[a:b] for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]

    def marked(self, trace: Trace, numbers: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return which of the characters of all pieces (C,) are in a trace, or in part of it."""
        found = np.zeros(len(self._characters), dtype=bool)
        found[trace.source[numbers]] = True
        return found

    def owner(self, source: np.ndarray) -> np.ndarray:
        """Return of which piece characters (M,) are."""
        return np.searchsorted(self.starts, source, side="right") - 1

    def piece(self, source: int) -> Piece:
        """Return the piece of a character."""
        return self.pieces[self._number(source)]

    def key(self, source: int) -> Key:
        """Return the path of a character's text, and how many characters follow it there."""
        piece = self.piece(source)
        return piece.path, len(piece.text) - self.index(source)

    def is_reasoning(self, source: int) -> bool:
        """Return whether a character is of reasoning."""
        return self.index(source) < self.piece(source).reasoning

    def is_written(self, number: int, trace: Trace) -> tuple[bool, bool]:
        """Return whether the reasoning of a piece is written, and whether the rest of it is.

        What has no stand-in counts as written.
        """
        begin, stop = int(self.starts[number]), int(self.starts[number + 1])
        bounds = (begin, begin + self.pieces[number].reasoning, stop)
        asked, found = (
            np.diff(np.searchsorted(sources, bounds))
            for sources in (self.slots, np.sort(trace.source))
        )
        reasoning, rest = (found > 0) | (asked == 0)
        return bool(reasoning), bool(rest)

    def index(self, source: int) -> int:
        """Return which character of its piece one is."""
        return source - self._begins[self._number(source)]

    def _number(self, source: int) -> int:
        return bisect_right(self._begins, source) - 1

    def trace(self, rendered: str, shadow: str) -> Trace | None:
        """Return the origins of a rendered text's characters, or None if they are not sure.

        Args:
            rendered: what the template writes of the pieces.
            shadow: what it writes of `texts`.
        """
        if len(rendered) != len(shadow):
            return None
        real, other = _codes(rendered), _codes(shadow)
        at = np.flatnonzero(real != other)
        found = self._among(other[at])
        if not found.all():
            return None
        source = self._sources(other[at])
        if (self._characters[source] != real[at]).any():
            return None
        return Trace(at, source)

    def order(self, shadow: str) -> Trace:
        """Return the origins of a text of stand-ins, without the rendered text to compare."""
        codes = _codes(shadow)
        at = np.flatnonzero(self._among(codes))
        return Trace(at, self._sources(codes[at]))

    def _among(self, codes: np.ndarray) -> np.ndarray:
        """Return which characters (M,) are stand-ins."""
        if not len(self._stand_ins):
            return np.zeros(len(codes), dtype=bool)
        places = np.searchsorted(self._stand_ins, codes)
        return np.asarray(self._stand_ins[np.minimum(places, len(self.slots) - 1)] == codes)

    def _sources(self, stand_ins: np.ndarray) -> np.ndarray:
        """Return which characters of all pieces stand-ins (M,) stand for."""
        return self.slots[np.searchsorted(self._stand_ins, stand_ins)]

    def _whole_ones(self, chosen: np.ndarray) -> np.ndarray:
        """Choose all but white space of a piece of which nothing is chosen."""
        for begin, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            if chosen[begin:stop].any():
                continue
            chosen[begin:stop] = ~_BLANK[np.minimum(self._characters[begin:stop], 0x3001)]
        return chosen


def _rationed(chosen: np.ndarray, starts: np.ndarray, most: int) -> np.ndarray:
    """Return which characters get a stand-in: each chosen one, or of long texts each n-th.

    The first and the last of each piece are among them.
    """
    if len(chosen) <= most:
        return chosen
    ends = np.searchsorted(chosen, starts)
    edges = np.concatenate([ends[:-1], ends[1:] - 1])
    step = -(-len(chosen) // max(1, most - len(edges)))
    few: np.ndarray = np.union1d(np.arange(0, len(chosen), step), edges)
    return np.asarray(chosen[few[:most]])


def _free(text: str) -> np.ndarray:
    """Return the characters of the planes for private use that a text does not hold, rising."""
    codes = _codes(text)
    taken = codes[codes >= _FIRST]
    return np.setdiff1d(_PRIVATE, taken) if len(taken) else _PRIVATE


def _codes(text: str) -> np.ndarray:
    """Return the code points of a text (T,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _occurrences(text: str, words: Collection[str]) -> list[slice]:
    """Return where words are in a text; one may overlap another."""
    letters = set(text)
    return [
        slice(*found.span())
        for word in words
        if word[0] in letters and word in text
        for found in re.finditer(re.escape(word), text)
    ]
