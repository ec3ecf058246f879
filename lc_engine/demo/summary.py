"""What the demo measured, and the table that it prints."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lc_engine.demo.compare import Comparison, DensePath
    from lc_engine.demo.settings import Files
    from lc_engine.demo.training import Trained


@dataclass(frozen=True)
class Outcome:
    """The demo's measurements.

    Attributes:
        seed: it ran with.
        samples: training rows scored.
        sub_models: K that each was scored under.
        seconds: of the whole scoring, reading and prototypes included.
        body: every convolution masked, on a sample of the rows.
        head: a linear probe masked, on all of them.
        dense: the even path that the nodes stand in for.
        gamma: FlexRand's split, as gamma="auto" chose it on the training rows.
        gamma_reason: why.
        gamma_seconds: what the choice cost.
        test_samples: rows that accuracies are of.
        trained: one per strategy: all rows, learning complexity, random, easiest, hardest.
        files: what was written.
    """

    seed: int
    samples: int
    sub_models: int
    seconds: float
    body: Comparison
    head: Comparison
    dense: DensePath
    gamma: float
    gamma_reason: str
    gamma_seconds: float
    test_samples: int
    trained: list[Trained]
    files: Files

    @property
    def gain(self) -> tuple[float, float]:
        """Learning complexity over random in points: the mean of the pairs, its standard error."""
        by_name = {trained.name: trained.accuracies for trained in self.trained}
        pairs = zip(by_name["learning complexity"], by_name["random"], strict=True)
        gains = [100 * (ours - random) for ours, random in pairs]
        return statistics.fmean(gains), statistics.stdev(gains) / len(gains) ** 0.5


def as_text(outcome: Outcome) -> str:
    """Write the table for a terminal."""
    gain, error = outcome.gain
    dense, body = outcome.dense, outcome.body
    files = outcome.files
    return "\n".join(
        [
            "",
            *_scoring(outcome),
            "",
            f"{body.sub_models} Gauss nodes stand in for {dense.sub_models} even steps: rank "
            f"correlation {dense.correlation:.3f} on {dense.samples} samples, for which the",
            f"released way takes {dense.seconds:.1f} s over all {dense.sub_models}, the engine "
            f"{body.seconds['engine']:.1f} s ({dense.seconds / body.seconds['engine']:.1f}×)",
            "",
            *_training(outcome),
            f"gain over random: {gain:+.1f} points, standard error {error:.1f}",
            f"γ = {outcome.gamma:g} ({outcome.gamma_reason}; {outcome.gamma_seconds:.1f} s)",
            "",
            f"scores   {files.scores}",
            f"subset   {files.subset}",
            f"picture  {files.picture}",
            f"numbers  {files.numbers}",
        ]
    )


def _scoring(outcome: Outcome) -> list[str]:
    head = [
        "scoring", "samples", "sub-models", "samples/s", "vs naive loop", "vs released way",
        "largest |Δ|",
    ]  # fmt: skip
    rows = [
        [
            "convolutions masked",
            f"{outcome.samples:,}",
            str(outcome.sub_models),
            f"{outcome.samples / outcome.seconds:,.0f}",
            "",
            "",
            "",
        ]
    ]
    for name, comparison in (
        ("the same, in turns", outcome.body),
        ("linear head masked, in turns", outcome.head),
    ):
        rows.append(
            [
                name,
                f"{comparison.samples:,}",
                str(comparison.sub_models),
                f"{comparison.samples / comparison.seconds['engine']:,.0f}",
                *(
                    f"{comparison.times_faster(way):.2f}×" if way in comparison.seconds else ""
                    for way in ("loop", "released")
                ),
                f"{comparison.difference:.1e}",
            ]
        )
    return aligned([head, *rows])


def _training(outcome: Outcome) -> list[str]:
    seeds = len(outcome.trained[0].accuracies)
    head = ["trained on", "samples", f"accuracy % on {outcome.test_samples:,}, {seeds} seeds"]
    rows = [
        [trained.name, f"{trained.samples:,}", f"{trained.mean:.1f} ± {trained.spread:.1f}"]
        for trained in outcome.trained
    ]
    return aligned([head, *rows])


def aligned(rows: list[list[str]]) -> list[str]:
    """Align a table: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "─" * max(map(len, lines)), *lines[1:]]
