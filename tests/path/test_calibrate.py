from __future__ import annotations

import numpy as np
import pytest

from lc_engine.path.calibrate import GRID, equal_steps
from lc_engine.path.learning_path import LearningPath


class Measured:
    """A scorer whose confidence at each capacity is given; `asked` is what it was asked for."""

    path = LearningPath.geometric(4, 0.1)

    def __init__(self, confidence):
        self.confidence = confidence
        self.asked = []

    def sample_log_probs(self, data, samples, path=None):
        self.asked.append((data, samples, path))
        capacities = (self.path if path is None else path).capacities
        p = np.array([self.confidence(r) for r in capacities])[:, None]
        return np.log(np.clip(p + np.array([-0.05, 0.05]), 1e-3, 1))


def test_points_are_placed_at_equal_steps_of_confidence():
    capacities = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.02])
    found = equal_steps(capacities, np.array([0.9, 0.9, 0.5, 0.1, 0.12, 0.1]), 4)
    np.testing.assert_allclose(found, [0.75, 0.65, 0.55, 0.45], atol=0.02)
    flat = equal_steps(np.array([1.0, 0.5, 0.1]), np.full(3, 0.7), 3)
    assert tuple(flat) == (1.0, 0.55, 0.1)


def test_a_calibrated_path_holds_its_curve():
    scorer = Measured(lambda r: 0.9 if r > 0.7 else 0.2)
    path = LearningPath.calibrated(scorer, "data", K=4, samples=9)
    ((data, samples, grid),) = scorer.asked
    assert (data, samples, grid.capacities) == ("data", 9, GRID)
    assert path.name == "calibrated"
    assert path.weights == (0.25,) * 4
    assert all(0.7 < r < 0.75 for r in path.capacities)
    assert [r for r, _ in path.curve] == list(GRID)
    np.testing.assert_allclose([p for _, p in path.curve], [0.9] * 6 + [0.2] * 10)
    assert LearningPath.from_dict(path.to_dict()) == path
    with pytest.raises(ValueError, match="K must be at least 1"):
        LearningPath.calibrated(scorer, "data", K=0)


def test_a_fitted_path_is_of_the_scorers_own():
    scorer = Measured(lambda r: r)
    path = LearningPath.fitted(scorer, "data", K=2, samples=9)
    assert scorer.asked == [("data", 9, None)]
    assert path.name == "geometric~fit2"
    assert path == scorer.path.fitted_to(scorer.sample_log_probs("data", 9), 2)
    with pytest.raises(ValueError, match=r"points must lie in \[1, 4\]"):
        LearningPath.fitted(scorer, "data", K=5)
    assert len(scorer.asked) == 2  # a number of points that does not fit costs no measurement
