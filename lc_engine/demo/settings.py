"""How large the demo is, and the files that it writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from pathlib import Path

# Sparser sub-models of this model are close to chance on these digits.
_RANGE = (0.5, 1.0)


@dataclass(frozen=True)
class Settings:
    """How large the demo is; the defaults are what `lc-engine demo` runs.

    Attributes:
        train: digits of each class to score and to select from.
        test: other digits of each class to test on; train + test ≤ 500.
        image_size: side in pixels at which the model sees them.
        batch_size: rows that go through the model at a time.
        path: of the scores.
        dense_path: the even spacing that `path` stands in for.
        head_path: of the masked linear probe.
        temperature: of the cosine prototypes; at 0.02 their mean confidence at full capacity is
            the share of digits that they classify correctly.
        compared: training rows that the engine and the naive ways both score.
        rounds: of each comparison, at least 3; medians are reported, with the range.
        keep: fraction of the training rows that is selected.
        seeds: subsets and trainings per strategy.
        steps: of each training.
    """

    train: int = 400
    test: int = 100
    image_size: int = 64
    batch_size: int = 32
    path: LearningPath = field(default_factory=lambda: LearningPath.gauss(8, *_RANGE))
    dense_path: LearningPath = field(default_factory=lambda: LearningPath.linear(50, *_RANGE))
    head_path: LearningPath = field(default_factory=LearningPath.geometric)
    temperature: float = 0.02
    compared: int = 256
    rounds: int = 3
    keep: float = 0.1
    seeds: int = 5
    steps: int = 1000


@dataclass(frozen=True)
class Files:
    """What the demo writes: `images/` and `scores/` are folders, the rest are files."""

    images: Path
    scores: Path
    subset: Path
    figure: Path
    numbers: Path

    @classmethod
    def below(cls, out: Path) -> Files:
        """Name the files in the folder `out`."""
        return cls(
            images=out / "images",
            scores=out / "scores",
            subset=out / "subset.txt",
            figure=out / "confidence.png",
            numbers=out / "demo.json",
        )
