"""Paths that are measured on the data, as the command line writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from lc_engine.data.batch import Source
    from lc_engine.scorer.scorer import Scorer

_FIT = "~fit"


@dataclass(frozen=True)
class MeasuredPath:
    """What "calibrated:8" or "geometric:50:0.02~fit6" asks for.

    Attributes:
        whole: the path whose points are chosen among; None for a calibrated one.
        points: how many there will be.
    """

    whole: LearningPath | None
    points: int

    @classmethod
    def parse(cls, text: str) -> MeasuredPath | None:
        """Read a path that the data decide; None for every other.

        Raises:
            ValueError: the number of points is no number, or the path before it is not known.
        """
        text = text.strip()
        fit = _FIT in text
        name, _, points = text.partition(_FIT if fit else ":")
        if not fit and name != "calibrated":
            return None
        if not points.isdecimal() or int(points) < 1:
            raise ValueError(
                f"path {text!r}: write calibrated:8 or geometric:50:0.02~fit8, with the number of "
                "points"
            )
        return cls(LearningPath.parse(name) if fit else None, int(points))

    def measure(self, scorer: Scorer, source: Source) -> LearningPath:
        """Measure it with a scorer, whose own path does not matter."""
        if self.whole is None:
            return LearningPath.calibrated(scorer, source, self.points)
        return LearningPath.fitted(scorer.with_path(self.whole), source, self.points)

    def made(self, path: LearningPath) -> bool:
        """Tell whether a path is one that this made before."""
        name = "calibrated" if self.whole is None else f"{self.whole.name}{_FIT}{self.points}"
        return path.name == name and len(path) == self.points
