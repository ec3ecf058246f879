"""LearningPath: the capacities of a model's sub-models, and the weight of each in the mean.

A learning path (arXiv 2402.05356, section 3) is K sub-models that keep a fraction r of the weights;
learning complexity is the mean of a confidence over it. Its published form is a geometric sequence,
but the mean is an integral over capacity, which Gauss-Legendre nodes sample with far fewer points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from lc_engine._util.digests import config_digest
from lc_engine.path.calibrate import GRID, equal_steps
from lc_engine.path.checks import check_path, check_points, check_range
from lc_engine.path.parse import FORMS, read
from lc_engine.path.quadrature import clenshaw_curtis, gauss_legendre, gauss_of
from lc_engine.path.subset import closest_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from lc_engine.path.protocols import SampleScorer

# Rows by which a path is measured, unless the caller says otherwise.
SAMPLE_ROWS: Final = 256


@dataclass(frozen=True)
class LearningPath:
    """K capacities, the densest first, and their weights in the mean.

    Attributes:
        name: "geometric", "linear", "gauss", "explicit", …
        capacities: K fractions of the maskable weights kept, in (0, 1], descending.
        weights: K weights ω_k ≥ 0 whose sum is 1.
        step: of a geometric path, the fraction of the remaining weights removed at each step.
        curve: of a calibrated path, the measured pairs (capacity, mean confidence).

    Raises:
        ValueError: naming the field that does not fit.
    """

    name: str
    capacities: tuple[float, ...]
    weights: tuple[float, ...]
    step: float | None = None
    curve: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        check_path(self.capacities, self.weights)

    def __len__(self) -> int:
        """Return K, the number of sub-models."""
        return len(self.capacities)

    @classmethod
    def geometric(cls, K: int = 50, step: float = 0.02) -> LearningPath:  # noqa: N803
        """Return the published path: each step takes away `step` of what remains.

        Its K capacities are (1 − step)^k from 1 down; the defaults, those of the released code of
        arXiv 2402.05356 v2, end at 0.372.

        Raises:
            ValueError: K < 1, or a step outside (0, 1).
        """
        check_points(K)
        if not 0 < step < 1:
            raise ValueError(f"step must lie in (0, 1), got {step}")
        return cls("geometric", tuple((1.0 - step) ** k for k in range(K)), _equal(K), step)

    @classmethod
    def linear(cls, K: int = 50, lo: float = 0.02, hi: float = 1.0) -> LearningPath:  # noqa: N803
        """Return K evenly spaced capacities from `hi` down to `lo`, both included (K = 1: `hi`).

        Raises:
            ValueError: K < 1, or not 0 < lo < hi ≤ 1.
        """
        check_points(K)
        check_range(lo, hi)
        return cls("linear", tuple(np.linspace(hi, lo, K).tolist()), _equal(K))

    @classmethod
    def gauss(cls, K: int = 8, lo: float = 0.02, hi: float = 1.0) -> LearningPath:  # noqa: N803
        """Return the K Gauss-Legendre nodes and weights of the mean over capacities [lo, hi].

        Exact for confidences that are polynomials in the capacity of degree 2K − 1 or less.

        Raises:
            ValueError: K < 1, or not 0 < lo < hi ≤ 1.
        """
        check_points(K)
        check_range(lo, hi)
        nodes, weights = gauss_legendre(K)
        return cls("gauss", tuple((lo + (hi - lo) * nodes).tolist()), tuple(weights.tolist()))

    @classmethod
    def clenshaw_curtis(
        cls,
        K: int = 9,  # noqa: N803
        lo: float = 0.02,
        hi: float = 1.0,
        spacing: Literal["linear", "log"] = "linear",
    ) -> LearningPath:
        """Return the K Clenshaw-Curtis nodes and weights of the mean over capacities [lo, hi].

        Every second node is a rule of its own (see `levels`), so scores come with an estimate of
        their error, and a path can be made denser without losing what was computed.

        Args:
            K: 2^m + 1, m ≥ 1.
            lo: the smallest capacity.
            hi: the largest.
            spacing: of the mean: "linear" over the capacity, as `linear` has it, or "log" over
                its logarithm, as `geometric` has it.

        Raises:
            ValueError: another K, or not 0 < lo < hi ≤ 1.
        """
        if K < 3 or (K - 1) & (K - 2):
            raise ValueError(f"K must be 3, 5, 9, 17, … (2^m + 1), got {K}")
        check_range(lo, hi)
        nodes, weights = clenshaw_curtis(K)
        # The ends are exactly the capacities given, so that a denser path has them too.
        capacities = lo + (hi - lo) * nodes if spacing == "linear" else lo * (hi / lo) ** nodes
        return cls("clenshaw_curtis", (hi, *capacities[1:-1].tolist(), lo), tuple(weights.tolist()))

    @classmethod
    def calibrated(
        cls,
        scorer: SampleScorer[LearningPath],
        data: Any,
        K: int = 8,  # noqa: N803
        samples: int = SAMPLE_ROWS,
    ) -> LearningPath:
        """Return K capacities at equal steps of a model's mean confidence, from the full model.

        Args:
            scorer: its model, masking and head are used, its path is not; it is not changed. A
                head that learns from the data and has not yet learns from the sample.
            data: what `open_source` takes.
            K: number of points.
            samples: rows that are looked at, evenly spaced.

        Returns:
            A path "calibrated" with equal weights and the measured curve, which is saved with the
            scores.

        Raises:
            ValueError: K < 1; early exits, which have no capacity to choose; no row that can be
                scored.
        """
        check_points(K)
        log_probs = scorer.sample_log_probs(data, samples, cls.explicit(GRID))
        confidence = np.exp(log_probs).mean(1)
        path = cls.explicit(equal_steps(np.array(GRID), confidence, K).tolist())
        curve = tuple(zip(GRID, confidence.tolist(), strict=True))
        return replace(path, name="calibrated", curve=curve)

    @classmethod
    def fitted(
        cls,
        scorer: SampleScorer[LearningPath],
        data: Any,
        K: int = 8,  # noqa: N803
        samples: int = SAMPLE_ROWS,
    ) -> LearningPath:
        """Return K points of a scorer's path, and weights, that give its loss with few sub-models.

        Args:
            scorer: along the path whose points are chosen among; it is not changed. A head that
                learns from the data and has not yet learns from the sample.
            data: what `open_source` takes.
            K: number of points, 1 to the scorer's.
            samples: rows that are run through the whole path, evenly spaced.

        Returns:
            See `fitted_to`.

        Raises:
            ValueError: another K; early exits; no row that can be scored.
        """
        scorer.path._check_chosen(K)
        return scorer.path.fitted_to(scorer.sample_log_probs(data, samples), K)

    def fitted_to(self, log_probs: NDArray[np.float64], points: int) -> LearningPath:
        """Return points of this path whose weighted mean of −log p is closest to that of all.

        Args:
            log_probs: (K, M) log p of M rows along this path.
            points: 1 to K.

        Returns:
            A path of `points` of these capacities, with weights ≥ 0 that sum to 1; see
            `subset.closest_mean`.

        Raises:
            ValueError: another number of points.
        """
        self._check_chosen(points)
        chosen, weights = closest_mean(-log_probs.T, np.asarray(self.weights), points)
        pairs = sorted(zip(chosen, weights, strict=True))
        return LearningPath(
            f"{self.name}~fit{points}",
            tuple(self.capacities[k] for k, _ in pairs),
            tuple(float(weight) for _, weight in pairs),
        )

    def condensed(self, points: int) -> LearningPath:
        """Return the Gauss points of this path's own mean: few sub-models in place of its many.

        Exact for confidences that are polynomials of degree 2·points − 1 or less in the capacity,
        for a geometric path in its logarithm.

        Args:
            points: 1 to K.

        Raises:
            ValueError: another number of points.
        """
        self._check_chosen(points)
        r, omega = np.array(self.capacities), np.array(self.weights)
        u, index = np.unique(np.log(r) if self.step is not None else r, return_inverse=True)
        mass = np.bincount(index, omega)
        u, mass = u[mass > 0], mass[mass > 0]
        if points >= len(u):
            return self
        nodes, weights = gauss_of(u, mass, points)
        capacities = np.exp(nodes) if self.step is not None else nodes
        return LearningPath(
            f"{self.name}~{points}",
            tuple(capacities.clip(max=1.0).tolist()),
            tuple((weights / weights.sum()).tolist()),
        )

    def _check_chosen(self, points: int) -> None:
        if not 1 <= points <= len(self):
            raise ValueError(f"points must lie in [1, {len(self)}], got {points}")

    def levels(self) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Return the nested rules inside a Clenshaw-Curtis path, the coarsest first.

        Returns:
            Pairs of indices into `capacities` and their weights; the last is the path itself.

        Raises:
            ValueError: a path that is not nested.
        """
        if self.name != "clenshaw_curtis":
            raise ValueError(
                f"the path {self.name} holds no coarser rule: use LearningPath.clenshaw_curtis"
            )
        last = len(self) - 1
        strides = [2**j for j in reversed(range((last // 2).bit_length()))]
        return [
            (tuple(range(0, last + 1, s)), tuple(clenshaw_curtis(last // s + 1)[1].tolist()))
            for s in strides
        ]

    @classmethod
    def explicit(
        cls, capacities: Sequence[float], weights: Sequence[float] | None = None
    ) -> LearningPath:
        """Return a path of given capacities, in any order; weights are scaled to sum to 1.

        Args:
            capacities: K fractions in (0, 1].
            weights: K numbers ≥ 0 in the same order, or None for equal weights.

        Raises:
            ValueError: naming the argument that does not fit.
        """
        given = [1.0] * len(capacities) if weights is None else [float(w) for w in weights]
        if len(given) != len(capacities):
            raise ValueError(
                f"weights must hold one number per capacity ({len(capacities)}), got {len(given)}"
            )
        total = math.fsum(given)
        if given and not (total > 0 and math.isfinite(total)):
            raise ValueError(f"weights must have a positive sum, got {total}")
        pairs = sorted(zip(map(float, capacities), given, strict=True), key=lambda pair: -pair[0])
        return cls("explicit", tuple(r for r, _ in pairs), tuple(w / total for _, w in pairs))

    @classmethod
    def parse(cls, text: str) -> LearningPath:
        """Read a path as the command line writes it.

        Args:
            text: "geometric:50:0.02", "linear:50:0.02:1.0", "gauss:8:0.02:1.0",
                "clenshaw_curtis:9:0.02:1.0" (what is left out takes its default) or
                "explicit:1,.5,.2"; with "~n" behind it, `condensed(n)` of that.

        Raises:
            ValueError: naming the text and the forms there are.
        """
        try:
            form, numbers, condensed = read(text)
            if form == "explicit":
                path = cls.explicit(numbers)
            else:
                factories: dict[str, Callable[..., LearningPath]] = {
                    "geometric": cls.geometric,
                    "linear": cls.linear,
                    "gauss": cls.gauss,
                    "clenshaw_curtis": cls.clenshaw_curtis,
                }
                path = factories[form](*numbers)
            return path if condensed is None else path.condensed(condensed)
        except KeyError:
            raise ValueError(f"path {text!r} is not known; write {FORMS}") from None
        except ValueError as error:
            raise ValueError(f"path {text!r}: {error}; write {FORMS}") from None

    def keep_counts(self, numel: int) -> list[int]:
        """Return how many of `numel` weights each sub-model keeps, descending.

        A geometric path rounds at each step, exactly as repeated pruning by
        `torch.nn.utils.prune` with `amount=step` does; the others keep round(r · numel).
        """
        if self.step is None:
            return [round(capacity * numel) for capacity in self.capacities]
        counts = [numel]
        while len(counts) < len(self):
            counts.append(counts[-1] - round(self.step * counts[-1]))
        return counts

    @property
    def digest(self) -> str:
        """SHA-256 of what the scores depend on, in hexadecimal."""
        return config_digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; `from_dict` reads them back exactly."""
        return {
            "name": self.name,
            "capacities": list(self.capacities),
            "weights": list(self.weights),
            "step": self.step,
        } | ({} if self.curve is None else {"curve": [list(pair) for pair in self.curve]})

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LearningPath:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: naming the fields that are missing or do not fit.
        """
        missing = {"name", "capacities", "weights"} - set(fields)
        if missing:
            raise ValueError(f"path lacks {', '.join(sorted(missing))}")
        curve = fields.get("curve")
        return cls(
            fields["name"],
            tuple(fields["capacities"]),
            tuple(fields["weights"]),
            fields.get("step"),
            None if curve is None else tuple((r, p) for r, p in curve),
        )


def _equal(points: int) -> tuple[float, ...]:
    return (1.0 / points,) * points


def checked_path(path: Any) -> LearningPath:
    """Return a path.

    Raises:
        ValueError: it is none; of a text, with the call that reads it.
    """
    if isinstance(path, LearningPath):
        return path
    hint = f": write LearningPath.parse({path!r})" if isinstance(path, str) else ""
    raise ValueError(f"path must be a LearningPath, got {type(path).__name__}{hint}")
