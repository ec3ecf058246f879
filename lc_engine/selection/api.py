"""select, and the choices of a strategy and of γ: a score table in, row ids out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lc_engine.selection.arguments import check_seed
from lc_engine.selection.auto_gamma import choice
from lc_engine.selection.auto_strategy.choice import choose
from lc_engine.selection.decide import decide, own_features
from lc_engine.selection.problem import prepare

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.features import Features
    from lc_engine.selection.auto_gamma.choice import GammaChoice
    from lc_engine.selection.auto_gamma.cross_validation import Objective
    from lc_engine.selection.auto_strategy.choice import StrategyChoice
    from lc_engine.selection.budget import Bound
    from lc_engine.selection.columns import ScoresLike


def select(
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
    noise_guard: float = 0.0,
    balance: float | None = None,
    objective: Objective = "balanced",
    **options: Any,
) -> NDArray[Any]:
    """Return the ids of the rows to keep: exactly round(keep · N) of the N rows of status "ok".

    The result depends on the seed and on the set of rows, not on their order. Ties in a score
    are broken by a hash of the id.

    Args:
        scores: a ScoreTable, the file or folder that holds one, or a data frame or mapping of
            columns with "id" and what the strategy reads ("loss", "lc", "lc_std", "label", and
            optionally "status").
        keep: a float in (0, 1] is a fraction, an int of at least 1 a count: 1 is one row, 1.0
            all rows.
        strategy: a name in `STRATEGIES`, or "auto": with features and classes the one that a trial
            finds best (see `choose_strategy`), of instruction data with `ifd` random rows behind a
            guard, of others FlexRand. The choice, its reason and its cost are logged.
        gamma: FlexRand's split γ in [0, 1], or "auto" (see `choose_gamma`). A number with
            strategy="auto" stands for FlexRand.
        by: the column whose values share the budget (largest remainders, at least one row each if
            the budget allows), or None for one group.
        seed: of every draw, at least 0.
        score: the column of numbers that ranks rows; its direction is in the table's metadata.
        features: (rows of `scores`, D), for the strategies that read features and for
            gamma="auto". None takes those that a run kept beside its scores, for strategy="auto"
            and for strategies that need them; FlexRand's gamma="auto" then goes by the rule.
        floor: least number kept per group (or all its rows, if they are fewer): an int for all
            groups, or {value of `by`: int}.
        cap: greatest number kept per group, likewise.
        noise_guard: share of each group, hard under every sub-model or doubtful as an answer, to
            drop before selecting (see `lc_engine.selection.noise_guard`); 0 keeps every row
            eligible.
        balance: α in [0, 1]; groups share the budget in proportion to n^α of their n rows: 1 as the
            data are, 0 equally. None is 1, and with strategy="auto" what a trial finds best, if
            there are features and neither floor nor cap.
        objective: what the trials of strategy="auto" maximize: "balanced" the mean of the classes'
            accuracies, "as-is" the accuracy of the rows as they are.
        **options: of the strategy: `guard` (guarded_herding), `clusters` (easy_diverse), `bins` and
            `cutoff` (stratified).

    Returns:
        The ids kept, ascending.

    Raises:
        ValueError: naming the invalid argument, column or row.
    """
    return decide(
        scores,
        keep,
        strategy,
        gamma=gamma,
        by=by,
        seed=seed,
        score=score,
        features=features,
        floor=floor,
        cap=cap,
        noise_guard=noise_guard,
        balance=balance,
        objective=objective,
        options=options,
    ).ids


def choose_strategy(
    scores: ScoresLike,
    keep: float,
    *,
    features: ArrayLike | Features | None = None,
    by: str | None = "label",
    seed: int = 0,
    score: str = "loss",
    floor: Bound = None,
    cap: Bound = None,
    noise_guard: float = 0.0,
) -> StrategyChoice:
    """Return the strategy that suits a budget, by a trial on features.

    `select` keeps what it says with the candidate's `strategy`, `gamma` and `noise_guard`, and by
    itself with balance=1.

    Args:
        scores: as in `select`, like the other arguments.
        keep: the budget that the strategy is for.
        features: (rows of `scores`, D), of which a bounded sample is read; None takes those that a
            run kept beside its scores. Without any the rule of gamma="auto" decides.
        by: the column whose values share the budget.
        seed: of the trial's subsets.
        score: "loss" or "lc".
        floor: least number kept per group.
        cap: greatest number kept per group.
        noise_guard: share of each group to drop first, also from the trial.

    Raises:
        ValueError: naming the invalid argument, column or row.
    """
    problem = prepare(scores, keep, by=by, floor=floor, cap=cap, noise_guard=noise_guard)
    if features is None:
        features = own_features(problem.rows.scores)
    return choose(problem, score=score, features=features, seed=check_seed(seed))


def choose_gamma(
    scores: ScoresLike,
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
    """Return the choice that `select(..., gamma="auto")` makes of the same arguments.

    Args:
        scores: as in `select`, like the other arguments.
        keep: the budget that γ is for.
        features: (rows of `scores`, D), or None to decide by the rule. A bounded sample of the
            rows is read, so a memory map is enough.
        by: the column whose values share the budget.
        seed: of the trial's subsets.
        score: the column of numbers that ranks rows.
        floor: least number kept per group.
        cap: greatest number kept per group.
        noise_guard: share of each group to drop first, also from the trial.

    Raises:
        ValueError: naming the invalid argument, column or row.
    """
    problem = prepare(scores, keep, by=by, floor=floor, cap=cap, noise_guard=noise_guard)
    return choice.choose(problem, score=score, features=features, seed=check_seed(seed))
