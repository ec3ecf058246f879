"""Several ways timed in turns, and how far one ratio of them can be trusted."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_Name = TypeVar("_Name")

# The ratios of the rounds may differ by this factor for one number to stand for them.
_LARGEST_SPREAD: Final = 1.5


def in_turns(names: Iterable[_Name], rounds: int) -> Iterator[_Name]:
    """Yield every name once per round; each round begins with another one.

    So that a load that comes and goes falls on all of them.
    """
    order = list(names)
    for number in range(rounds):
        first = number % len(order)
        yield from order[first:] + order[:first]


@dataclass(frozen=True)
class Ratio:
    """How many times as long as another way one way took, over the rounds.

    Attributes:
        median: of the rounds.
        least: of any round.
        most: of any round.
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float], base: Sequence[float]) -> Ratio:
        """Compare two ways round by round."""
        ratios = [a / b for a, b in zip(seconds, base, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    @property
    def can_be_stated(self) -> bool:
        """Whether the rounds agree enough for one number; on a busy machine they do not."""
        return self.most <= _LARGEST_SPREAD * self.least

    def __str__(self) -> str:
        """Return the median and the range, or the range alone."""
        spread = f"{_short(self.least)}–{_short(self.most)}"
        return f"{self.median:.2f}× ({spread})" if self.can_be_stated else f"none ({spread})"


def _short(ratio: float) -> str:
    """Return a ratio with two digits at least."""
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"
