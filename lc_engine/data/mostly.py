"""Texts of many rows that are nearly all the same: statuses and their details."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Mostly(Sequence[str]):
    """A sequence of B texts of which only those that differ from the usual one take memory.

    A batch of features has tens of thousands of rows and hardly ever a bad one: a list of "ok"
    costs more time than their scores.

    Args:
        length: B.
        usual: the text of every row that `others` does not name.
        others: position -> text.
    """

    __slots__ = ("_length", "others", "usual")

    def __init__(self, length: int, usual: str, others: Mapping[int, str] | None = None) -> None:
        self._length = length
        self.usual = usual
        self.others = dict(others or {})

    @classmethod
    def of(cls, texts: Sequence[str], usual: str) -> Mostly:
        """Return a copy of any sequence of texts; it costs a pass unless it is a `Mostly`."""
        if isinstance(texts, Mostly) and texts.usual == usual:
            return cls(len(texts), usual, texts.others)
        return cls(len(texts), usual, {i: text for i, text in enumerate(texts) if text != usual})

    @classmethod
    def concat(cls, parts: Iterable[Sequence[str]], usual: str) -> Mostly:
        """Return the texts of all parts, one after the other."""
        whole = cls(0, usual)
        for part in parts:
            for position, text in cls.of(part, usual).others.items():
                whole.others[whole._length + position] = text
            whole._length += len(part)
        return whole

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.others.get(i, self.usual) for i in range(self._length)[index]]
        return self.others.get(range(self._length)[index], self.usual)

    def __setitem__(self, index: int, text: str) -> None:
        place = range(self._length)[index]
        if text == self.usual:
            self.others.pop(place, None)
        else:
            self.others[place] = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Mostly({self._length}, {self.usual!r}, {self.others!r})"
