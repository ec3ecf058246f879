"""What the demo measured, and the table that it prints."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lc_engine._util.text_table import aligned

if TYPE_CHECKING:
    from lc_engine.demo.compare import Comparison, DensePath
    from lc_engine.demo.settings import Files
    from lc_engine.demo.training import Trained


_PLAIN = ("loop", "released")


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
    """Return the tables for a terminal."""
    gain, error = outcome.gain
    dense, body, files = outcome.dense, outcome.body, outcome.files
    return "\n".join(
        [
            "",
            *_scoring(outcome),
            "",
            f"{body.sub_models} Gauss nodes stand in for {dense.sub_models} even steps: rank "
            f"correlation {dense.correlation:.3f} on {dense.samples} samples",
            "",
            *_training(outcome),
            f"gain over random: {gain:+.1f} points, standard error {error:.1f}",
            f"γ = {outcome.gamma:g} ({outcome.gamma_reason}; {outcome.gamma_seconds:.1f} s)",
            "",
            f"scores   {files.scores}",
            f"subset   {files.subset}",
            f"figure   {files.figure}",
            f"numbers  {files.numbers}",
        ]
    )


def _scoring(outcome: Outcome) -> list[str]:
    head = [
        "scoring", "samples", "sub-models", "samples/s", "naive loop / engine",
        "released way / engine", "largest |Δ|",
    ]  # fmt: skip
    whole = [
        "convolutions masked",
        f"{outcome.samples:,}",
        str(outcome.sub_models),
        f"{outcome.samples / outcome.seconds:,.0f}",
        *[""] * 3,
    ]
    compared = [
        ("the same, in turns", outcome.body),
        ("linear head masked, in turns", outcome.head),
    ]
    rows = [
        [
            name,
            f"{found.samples:,}",
            str(found.sub_models),
            f"{found.samples_per_second:,.0f}",
            *(str(found.ratio(way)) if way in found.seconds else "" for way in _PLAIN),
            f"{found.difference:.1e}",
        ]
        for name, found in compared
    ]
    return [*aligned([head, whole, *rows]), *_about_the_ratios(outcome)]


def _about_the_ratios(outcome: Outcome) -> list[str]:
    ratios = [
        found.ratio(way)
        for found in (outcome.body, outcome.head)
        for way in _PLAIN
        if way in found.seconds
    ]
    rounds = len(outcome.body.seconds["engine"])
    lines = [f"ratios: median (least–most) of {rounds} rounds"]
    if not all(ratio.can_be_stated for ratio in ratios):
        lines.append(
            "none: the rounds differ too much for a number; run the demo on a machine that does "
            "nothing else"
        )
    return lines


def _training(outcome: Outcome) -> list[str]:
    seeds = len(outcome.trained[0].accuracies)
    head = ["trained on", "samples", f"accuracy % on {outcome.test_samples:,}, {seeds} seeds"]
    rows = [
        [trained.name, f"{trained.samples:,}", f"{trained.mean:.1f} ± {trained.std:.1f}"]
        for trained in outcome.trained
    ]
    return aligned([head, *rows])
