"""What strategy="auto" chooses from: strategies that win somewhere on the evidence.

docs/selection.md has the evidence, also for those that are no candidates, as they lose on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lc_engine.selection.noise_guard import drop_suspected_noise
from lc_engine.selection.problem import Problem
from lc_engine.selection.strategies import STRATEGIES, keywords

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

GUARD: Final = 0.1  # share of each group that a candidate behind a guard drops first


class Candidate(NamedTuple):
    """A strategy, with all that `select` needs to repeat it.

    Attributes:
        strategy: a name in `STRATEGIES`.
        gamma: FlexRand's split, or None for other strategies.
        noise_guard: share of each group to drop first.
    """

    strategy: str
    gamma: float | None = None
    noise_guard: float = 0.0

    def __str__(self) -> str:
        """Return the name in the trial's table."""
        name = self.strategy if self.gamma is None else f"{self.strategy} {self.gamma:g}"
        return f"{name} behind a guard" if self.noise_guard else name

    def keep(
        self,
        problem: Problem,
        features: NDArray[np.float32],
        score: str,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """Return indices of the rows that this candidate keeps.

        Args:
            problem: N rows and budgets.
            features: (N, D) of the rows.
            score: "loss" or "lc".
            rng: of the draw.
        """
        behind = drop_suspected_noise(problem.rows, problem.counts, self.noise_guard)
        left = np.flatnonzero(np.isin(problem.rows.indices, behind.indices))
        given: dict[str, Any] = {"features": features[left], "score": score, "gamma": self.gamma}
        needed = {name: given[name] for name in keywords(self.strategy) if name in given}
        return left[STRATEGIES[self.strategy](Problem(behind, problem.counts), rng, **needed)]


RANDOM: Final = Candidate("random")
FAVORITE: Final = Candidate("guarded_herding")  # taken unless another is shown to be better
ALL: Final = (
    FAVORITE,
    Candidate("herding"),
    Candidate("herding", noise_guard=GUARD),
    Candidate("easy"),
)
