"""A sequence of texts that stores only those that differ from a default: statuses and details."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class SparseTexts(Sequence[str]):
    """A sequence of B texts, most of them equal to a default.

    A batch of features has tens of thousands of rows and hardly ever a bad one: a list of "ok"
    takes about as long to handle as their scores.

    Args:
        length: B.
        default: the text of every row that is not in `others`.
        others: index -> text.
    """

    __slots__ = ("_length", "default", "others")

    def __init__(self, length: int, default: str, others: Mapping[int, str] | None = None) -> None:
        self._length = length
        self.default = default
        self.others = dict(others or {})

    @classmethod
    def of(cls, texts: Sequence[str], default: str) -> SparseTexts:
        """Return a copy of any sequence of texts; it costs a pass unless it is a `SparseTexts`."""
        if isinstance(texts, SparseTexts) and texts.default == default:
            return cls(len(texts), default, texts.others)
        return cls(
            len(texts), default, {i: text for i, text in enumerate(texts) if text != default}
        )

    @classmethod
    def concat(cls, parts: Iterable[Sequence[str]], default: str) -> SparseTexts:
        """Return the texts of all parts, one after the other."""
        whole = cls(0, default)
        for part in parts:
            for index, text in cls.of(part, default).others.items():
                whole.others[whole._length + index] = text
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
            return [self.others.get(i, self.default) for i in range(self._length)[index]]
        return self.others.get(range(self._length)[index], self.default)

    def __setitem__(self, index: int, text: str) -> None:
        row = range(self._length)[index]
        if text == self.default:
            self.others.pop(row, None)
        else:
            self.others[row] = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SparseTexts({self._length}, {self.default!r}, {self.others!r})"
