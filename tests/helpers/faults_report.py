"""Counts of the faults that were tried, and the table of docs/reliability.md."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- tried: written by `make faults` -->\n", "<!-- end of tried -->\n"
# Outcomes in the order of the table's columns.
COLUMNS = ("undisturbed", "error", "killed")


class Tally:
    """How often each kind of fault was tried, and what came of it."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, fault: str, outcome: str, times: int = 1) -> None:
        """Count an outcome: one of `COLUMNS`, or anything else, which is a failure."""
        self._counts[fault][outcome] += times

    def failures(self) -> int:
        """Return how many outcomes are none of `COLUMNS`."""
        return sum(
            times
            for counts in self._counts.values()
            for outcome, times in counts.items()
            if outcome not in COLUMNS
        )

    def table(self) -> str:
        """Return the counts as Markdown."""
        lines = [
            "| fault | tried | ended as if undisturbed | ended with an error | killed | wrong |",
            "|---|---|---|---|---|---|",
        ]
        total: Counter[str] = Counter()
        for fault, counts in self._counts.items():
            lines.append(_line(fault, counts))
            total += counts
        return "\n".join([*lines, _line(f"**all**, {date.today():%Y-%m-%d}", total)]) + "\n"

    def write(self, page: Path) -> None:
        """Put the table in its place on a page."""
        text = page.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(before + BEGIN + self.table() + END + after, encoding="utf-8")


def _line(fault: str, counts: Counter[str]) -> str:
    known = [counts[column] for column in COLUMNS]
    tried = sum(counts.values())
    cells = [fault, *(f"{number:,}" for number in (tried, *known, tried - sum(known)))]
    return f"| {' | '.join(cells)} |"
