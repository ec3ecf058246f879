"""select: a score table in, row ids out."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lc_engine.selection.auto_gamma import choice as auto
from lc_engine.selection.problem import prepare
from lc_engine.selection.strategies import feature_space as coverage
from lc_engine.selection.strategies import score_based as ranked
from lc_engine.selection.strategies import uncertainty
from lc_engine.selection.strategies.flexrand import flexrand

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from lc_engine.selection.auto_gamma.choice import GammaChoice
    from lc_engine.selection.budget import Bound
    from lc_engine.selection.eligible import Rows, Scores

_log = logging.getLogger(__name__)

STRATEGIES: dict[str, Callable[..., NDArray[np.intp]]] = {
    "easy": ranked.easy,
    "easy_diverse": coverage.easy_diverse,
    "el2n": uncertainty.el2n,
    "entropy": uncertainty.entropy,
    "flexrand": flexrand,
    "hard": ranked.hard,
    "herding": coverage.herding,
    "kcenter": coverage.kcenter,
    "least_confidence": uncertainty.least_confidence,
    "margin": uncertainty.margin,
    "moderate": coverage.moderate,
    "random": ranked.random,
    "stratified": ranked.stratified,
}
_COMMON = ("features", "gamma", "score")


def select(
    scores: Scores,
    keep: float,
    strategy: str = "flexrand",
    *,
    gamma: float | Literal["auto"] = "auto",
    by: str | None = "label",
    seed: int = 0,
    score: str = "loss",
    features: ArrayLike | None = None,
    floor: Bound = None,
    cap: Bound = None,
    noise_guard: float = 0.0,
    **options: Any,
) -> NDArray[Any]:
    """Choose the rows to keep: exactly round(keep · N) of the N rows with status "ok".

    The result depends on the seed and on the set of rows, not on their order. Ties in a score
    are broken by a hash of the id.

    Args:
        scores: a ScoreTable, or a mapping of columns with "id" and what the strategy reads
            ("loss", "lc", "lc_std", "label", and optionally "status").
        keep: a float in (0, 1] is a fraction, an int of at least 1 a count: 1 is one row, 1.0
            everything.
        strategy: a name in `STRATEGIES`.
        gamma: FlexRand's split γ in [0, 1], or "auto" (see `choose_gamma`; what it chose, why
            and at what cost is logged).
        by: the column whose values share the budget in proportion to their number (largest
            remainders, at least one row each where the budget allows), or None for one group.
        seed: of every draw, at least 0.
        score: "loss" or "lc", the column that tells easy from hard.
        features: (rows of `scores`, D), for the strategies that look at features and for
            gamma="auto".
        floor: least number kept per group (or all its rows, where they are fewer): an int for
            all groups, or {value of `by`: int}.
        cap: greatest number kept per group, likewise.
        noise_guard: share of each group, hard under every sub-model, to set aside first
            (see `lc_engine.selection.noise_guard`); 0 keeps every row eligible.
        **options: of the strategy: `clusters` (easy_diverse), `bins` and `cutoff` (stratified).

    Returns:
        The ids kept, ascending.

    Raises:
        ValueError: naming the argument, column or row that does not fit.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}")
    run = STRATEGIES[strategy]
    takes = [p.name for p in inspect.signature(run).parameters.values() if p.kind is p.KEYWORD_ONLY]
    _check_options(strategy, takes, options, gamma)
    check_seed(seed)
    rows, counts = prepare(scores, keep, by=by, floor=floor, cap=cap, noise_guard=noise_guard)
    given: dict[str, Any] = dict(options)
    if "score" in takes:
        given["score"] = score
    if "features" in takes:
        if features is None:
            raise ValueError(f"strategy {strategy} needs features=, one row per row of scores")
        given["features"] = rows.align(features)
    if "gamma" in takes:
        given["gamma"] = _resolve_gamma(rows, counts, gamma, score, features, seed)
    kept = run(rows, counts, np.random.default_rng(seed), **given)
    return np.sort(rows.ids[kept])


def choose_gamma(
    scores: Scores,
    keep: float,
    *,
    features: ArrayLike | None = None,
    by: str | None = "label",
    seed: int = 0,
    score: str = "loss",
    floor: Bound = None,
    cap: Bound = None,
    noise_guard: float = 0.0,
) -> GammaChoice:
    """Make the choice that `select(..., gamma="auto")` makes of the same arguments, with reasons.

    Args:
        scores: as in `select`, like the other arguments.
        keep: the budget that γ is for.
        features: (rows of `scores`, D), or None to decide by the rule. A bounded sample of the
            rows is read, so a memory map will do.
        by: the column whose values share the budget.
        seed: of the trial's subsets.
        score: "loss" or "lc".
        floor: least number kept per group.
        cap: greatest number kept per group.
        noise_guard: share of each group to set aside first: it is not tried on either.

    Raises:
        ValueError: naming the argument, column or row that does not fit.
    """
    rows, counts = prepare(scores, keep, by=by, floor=floor, cap=cap, noise_guard=noise_guard)
    return auto.choose(rows, counts, score=score, features=features, seed=check_seed(seed))


def _resolve_gamma(
    rows: Rows,
    counts: NDArray[np.int64],
    gamma: float | Literal["auto"],
    score: str,
    features: ArrayLike | None,
    seed: int,
) -> float:
    if gamma != "auto":
        return check_gamma(gamma)
    choice = auto.choose(rows, counts, score=score, features=features, seed=seed)
    _log.log(logging.WARNING if choice.random else logging.INFO, "%s", choice)
    return choice.gamma


def check_gamma(gamma: Any) -> float:
    """Return γ as a float.

    Raises:
        ValueError: not a number in [0, 1].
    """
    number = isinstance(gamma, (int, float, np.integer, np.floating))
    if not number or isinstance(gamma, bool) or not 0.0 <= gamma <= 1.0:
        raise ValueError(f'gamma must be "auto" or a number in [0, 1], got {gamma!r}')
    return float(gamma)


def check_seed(seed: Any) -> int:
    """Return the seed as an int.

    Raises:
        ValueError: not an int of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be an int of at least 0, got {seed!r}")
    return int(seed)


def _check_options(strategy: str, takes: list[str], options: dict[str, Any], gamma: Any) -> None:
    if gamma != "auto" and "gamma" not in takes:
        raise ValueError(f"gamma is an argument of flexrand, not of strategy {strategy}")
    own = [name for name in takes if name not in _COMMON]
    for name in options:
        if name not in own:
            raise ValueError(
                f"strategy {strategy} takes no option {name!r}; it takes {', '.join(own) or 'none'}"
            )
