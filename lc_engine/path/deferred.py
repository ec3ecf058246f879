"""Deferred paths: texts such as "calibrated:8" whose capacities are measured on the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lc_engine.path.learning_path import SAMPLE_ROWS, LearningPath

if TYPE_CHECKING:
    from lc_engine.path.protocols import SampleScorer

_FIT = "~fit"


@dataclass(frozen=True)
class MeasuredPath:
    """The request that "calibrated:8" or "geometric:50:0.02~fit6" stands for.

    Attributes:
        whole: the path whose points are chosen among; None for a calibrated path.
        points: number of points.
    """

    whole: LearningPath | None
    points: int

    @classmethod
    def parse(cls, text: str) -> MeasuredPath | None:
        """Return the request that a text stands for, None for a path that needs no data.

        Raises:
            ValueError: the number of points is not a number, or the path before it is unknown.
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

    def measure(self, scorer: SampleScorer[LearningPath], data: Any) -> LearningPath:
        """Return the path, measured with a scorer whose own path is not used."""
        if self.whole is None:
            return LearningPath.calibrated(scorer, data, self.points)
        log_probs = scorer.sample_log_probs(data, SAMPLE_ROWS, self.whole)
        return self.whole.fitted_to(log_probs, self.points)

    def matches(self, path: LearningPath) -> bool:
        """Return whether a path is one that this text was measured to before."""
        name = "calibrated" if self.whole is None else f"{self.whole.name}{_FIT}{self.points}"
        return path.name == name and len(path) == self.points
