"""decide: which rows are kept, by which strategy and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lc_engine.data.features import as_rows
from lc_engine.selection import strategies
from lc_engine.selection.arguments import (
    check_gamma,
    check_gamma_applies,
    check_objective,
    check_seed,
)
from lc_engine.selection.auto_gamma import choice
from lc_engine.selection.auto_strategy.balance import BALANCES, choose_balance
from lc_engine.selection.auto_strategy.choice import choose
from lc_engine.selection.columns import as_scores
from lc_engine.selection.cost import say_or_refuse
from lc_engine.selection.exceptions import NO_EXCEPTIONS, Exceptions
from lc_engine.selection.method import Method
from lc_engine.selection.noise_guard import WRONG_ANSWERS, has_ifd
from lc_engine.selection.one_thread import one_thread
from lc_engine.selection.problem import divide
from lc_engine.selection.strategies import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.features import Features
    from lc_engine.selection.auto_gamma.cross_validation import Objective
    from lc_engine.selection.budget import Bound
    from lc_engine.selection.columns import ScoresLike
    from lc_engine.selection.problem import LeftOut, Problem

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Selection:
    """Rows to keep, and how they were chosen.

    Attributes:
        ids: (n,) of the rows kept, ascending.
        rows: (n,) their row numbers in the score table, ascending.
        left: the rows that were not chosen among.
        strategy: its name.
        gamma: of FlexRand, else None.
        noise_guard: share of each group that was set aside first.
        balance: α; groups shared the budget as n^α of their n rows.
        reason: why this strategy and this γ, a sentence.
        trial: what was tried, each with the mean gain over random in points and its standard error.
    """

    ids: NDArray[Any]
    rows: NDArray[np.intp]
    left: LeftOut
    strategy: str
    gamma: float | None
    noise_guard: float
    balance: float
    reason: str
    trial: list[dict[str, Any]]

    @property
    def method(self) -> Method:
        """The strategy with its γ and its guard."""
        return Method(self.strategy, self.gamma, self.noise_guard)

    def group_of(self) -> NDArray[np.intp]:
        """Return the group (N,) of each row of the table, −1 for one that cannot be kept."""
        eligible = self.left.eligible
        found = np.full(eligible.total, -1, np.intp)
        found[eligible.indices] = eligible.groups
        return found

    def groups(self) -> list[dict[str, Any]]:
        """Return name, rows to choose from and rows kept of each group."""
        eligible = self.left.eligible
        kept = np.bincount(self.group_of()[self.rows], minlength=len(eligible.group_names))
        columns = (eligible.group_names, eligible.group_sizes, kept)
        return [
            {"group": name, "rows": rows, "kept": count}
            for name, rows, count in zip(*(column.tolist() for column in columns), strict=True)
        ]


def decide(
    scores: ScoresLike,
    keep: float,
    strategy: str = "auto",
    *,
    gamma: float | Literal["auto"] = "auto",
    by: str | None = "label",
    seed: int = 0,
    score: str = "loss",
    features: ArrayLike | Features | None = None,
    floor: Bound = None,
    cap: Bound = None,
    balance: float | None = None,
    objective: Objective = "balanced",
    shares: Mapping[Any, float] | None = None,
    noise_guard: float = 0.0,
    exceptions: Exceptions = NO_EXCEPTIONS,
    options: Mapping[str, Any] | None = None,
) -> Selection:
    """Return the rows to keep, with the strategy and the reasons.

    Args:
        scores: as in `select`, like the arguments that are not named here.
        keep: a fraction or a count of the rows that may be kept.
        strategy: as in `select`.
        gamma: as in `select`.
        by: as in `select`.
        seed: as in `select`.
        score: as in `select`.
        features: as in `select`.
        floor: as in `select`.
        cap: as in `select`.
        balance: as in `select`.
        objective: as in `select`.
        shares: {value of `by`: share of the budget}; the other groups share the rest.
        noise_guard: as in `select`.
        exceptions: rows that are kept or left out whatever their score.
        options: of the strategy.

    Raises:
        ValueError: naming the invalid argument, column or row.
    """
    strategy = check_strategy(strategy, gamma)
    _check_options(strategy, options or {})
    check_seed(seed)
    check_objective(objective)
    scores = as_scores(scores)  # read once

    def divided(guard: float, share_out: float) -> tuple[Problem, LeftOut]:
        return divide(
            scores,
            keep,
            by=by,
            floor=floor,
            cap=cap,
            noise_guard=guard,
            balance=share_out,
            shares=shares,
            exceptions=exceptions,
        )

    bounded = floor is not None or cap is not None or bool(shares)
    alpha = 1.0 if balance is None else balance
    problem, left = divided(noise_guard, alpha)
    if strategy == "hard" and not noise_guard and has_ifd(problem.rows.scores):
        _log.warning(WRONG_ANSWERS)
    reason, trial = "as asked", list[dict[str, Any]]()
    if strategy == "auto":
        if features is None:
            features = own_features(problem.rows.scores)
        if balance is None and features is not None and by is not None and not bounded:
            ways = {a: (problem, left) if a == alpha else divided(noise_guard, a) for a in BALANCES}
            problems = {a: way[0] for a, way in ways.items()}
            shared = choose_balance(problems, features, seed, objective)
            shared.log()
            alpha = shared.balance
            problem, left = ways[alpha]
            trial = [_tried(f"budget as rows^{a:g}", gain) for a, gain in shared.gains.items()]
        found = choose(problem, score=score, features=features, seed=seed, objective=objective)
        found.log()
        strategy, reason = found.candidate.strategy, found.reason
        trial += [_tried(name, gain) for name, gain in found.gains.items()]
        gamma = "auto" if found.candidate.gamma is None else found.candidate.gamma
        if found.candidate.noise_guard > noise_guard:
            noise_guard = found.candidate.noise_guard
            problem, left = divided(noise_guard, alpha)
    elif gamma == "auto" and "gamma" in strategies.keywords(strategy):
        split = choice.choose(problem, score=score, features=features, seed=seed)
        split.log()
        gamma, reason = split.gamma, f"as asked; gamma {split.reason}"
        trial = [_tried(f"flexrand {g:g}", gain) for g, gain in split.gains.items()]
    elif gamma in (0, 1):
        choice.log_one_pool(float(gamma))
    arguments = _arguments(problem, strategy, gamma, score, features, options or {})
    rows, always = problem.rows, left.always
    with one_thread():
        kept = STRATEGIES[strategy](problem, np.random.default_rng(seed), **arguments)
    return Selection(
        ids=np.sort(np.concatenate([rows.ids[kept], always.ids])),
        rows=np.sort(np.concatenate([rows.indices[kept], always.indices])),
        left=left,
        strategy=strategy,
        gamma=arguments.get("gamma"),
        noise_guard=noise_guard,
        balance=alpha,
        reason=reason,
        trial=trial,
    )


def _tried(name: str, gain: tuple[float, float]) -> dict[str, Any]:
    return {"candidate": name, "gain": gain[0], "error": gain[1]}


def _arguments(
    problem: Problem,
    strategy: str,
    gamma: float | Literal["auto"],
    score: str,
    features: ArrayLike | Features | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a strategy is called with besides the problem and the random numbers."""
    keywords = strategies.keywords(strategy)
    arguments = dict(options)
    if "score" in keywords:
        arguments["score"] = score
    if "gamma" in keywords:
        arguments["gamma"] = check_gamma(gamma)
    if "features" in keywords:
        if features is None:
            features = own_features(problem.rows.scores)
        if features is None:
            raise ValueError(
                f"strategy {strategy} needs features=, one row per row of scores, and these scores "
                "were made without"
            )
        rows = as_rows(features)
        if rows.ndim == 2:  # else the next line refuses them
            say_or_refuse(problem, strategy, rows.shape[1], options)
        arguments["features"] = problem.rows.align(rows)
    return arguments


def own_features(scores: Any) -> Features | None:
    """Return the features that a run kept beside its scores; None of anything else."""
    return scores.features() if getattr(scores, "has_features", False) else None


def check_strategy(strategy: str, gamma: float | Literal["auto"]) -> str:
    """Return the strategy that is meant: "auto" with a γ is FlexRand.

    Raises:
        ValueError: an unknown strategy, one without γ beside a γ, or a γ out of range.
    """
    if gamma != "auto":
        check_gamma(gamma)
        strategy = "flexrand" if strategy == "auto" else strategy
    if strategy != "auto" and strategy not in STRATEGIES:
        raise ValueError(
            f"strategy must be auto or one of {', '.join(STRATEGIES)}; got {strategy!r}"
        )
    if strategy != "auto":
        check_gamma_applies(gamma, strategy, "gamma" in strategies.keywords(strategy))
    return strategy


def _check_options(strategy: str, options: Mapping[str, Any]) -> None:
    known = [] if strategy == "auto" else strategies.options(strategy)
    for name in options:
        if name not in known:
            raise ValueError(
                f"strategy {strategy} takes no option {name!r}; "
                f"it takes {', '.join(known) or 'none'}"
            )
