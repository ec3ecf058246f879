"""Every strategy on one training set at every budget, as `select` runs it with its defaults."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.selection import rejected, settings
from benchmarks.selection.finetune import FineTuning
from benchmarks.selection.probes import Judge
from lc_engine.selection import select
from lc_engine.selection.auto_strategy.candidates import ALL, Candidate
from lc_engine.selection.decide import decide
from lc_engine.selection.problem import prepare
from lc_engine.selection.strategies.uncertainty import el2n_scores, uncertainty_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.selection.features import Features


def _arguments(strategy: str, noise_guard: float, balance: float = 1.0) -> dict[str, Any]:
    """What `select` is called with: in one form, so that no selection is made twice."""
    guard = {"noise_guard": noise_guard} if noise_guard else {}
    return {"strategy": strategy} | guard | ({"balance": balance} if balance < 1.0 else {})


DRAWS = 3  # of a strategy that another seed draws otherwise
SINGLE: dict[str, dict[str, Any]] = {
    "random": {"strategy": "random"},
    **{f"flexrand {g:g}": {"strategy": "flexrand", "gamma": g} for g in (0.05, 0.2, 0.5, 0.7)},
    **{str(one): _arguments(one.strategy, one.noise_guard) for one in ALL},
    **{n: {"strategy": n} for n in ("easy_diverse", "moderate", "kcenter", "stratified", "hard")},
}
FINE_TUNED = 0.05  # share kept


class Run:
    """One training set: its scores by the whole model, its judge and what all budgets share."""

    def __init__(self, source: Features, variant: str, seed: int, *, held_out: bool) -> None:
        self.seed = seed
        self.draws = functools.cache(self._draws)  # "auto" often chooses what is tried in any case
        train, labels = source.of("train"), source.images.train_labels
        self.drawn = settings.draw(variant, labels, seed)
        self.features = train[self.drawn.rows]
        self.scores = settings.score_columns(*source.along("full"), train, self.drawn)
        path = settings.score_columns(*source.along("published magnitude"), train, self.drawn)
        test, truth = source.of("test"), source.images.test_labels
        if held_out:
            test, truth = train[self.drawn.held_out], labels[self.drawn.held_out]
        self.judge = Judge(self.features, self.drawn.labels, test, truth)
        rng = np.random.default_rng(seed)
        self.columns = uncertainty_scores(self.features, self.drawn.labels, rng)
        self.columns["el2n"] = el2n_scores(self.features, self.drawn.labels, rng)
        self.columns["DUAL"] = path["lc_std"] * (1 - path["lc"])  # arXiv 2502.06905, over the path
        problem = prepare(self.scores, 10, by="label", floor=None, cap=None, noise_guard=0.0)
        self.columns["ZCore"] = np.empty(len(self.features))
        by_hash = problem.rows.align(self.features)
        self.columns["ZCore"][problem.rows.ids] = rejected.zcore_scores(by_hash)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per budget and strategy, with the accuracies of its draws."""
        labels = self.drawn.labels
        for share, budget in settings.budgets(len(labels), len(np.unique(labels))):
            found = list(self.kept(budget))
            accuracy = iter(self.judge([ids for _, subsets, _ in found for ids in subsets]))
            for method, subsets, more in found:
                values = [next(accuracy) for _ in subsets]
                yield {"keep": share, "budget": budget, "method": method, "accuracy": values} | more

    def kept(self, budget: int) -> Iterator[tuple[str, list[np.ndarray], dict[str, Any]]]:
        """Yield the name of a strategy, the ids that each of its draws keeps, and what it chose."""
        began = time.process_time()
        auto = decide(self.scores, budget, features=self.features, seed=self.seed)
        seconds = time.process_time() - began
        plain = auto
        if auto.balance < 1.0:
            plain = decide(self.scores, budget, features=self.features, seed=self.seed, balance=1.0)
        for name, found in (("auto", auto), ("auto, α = 1", plain)):
            guard, balance = found.noise_guard, found.balance
            ids = self.draws(budget, **_arguments(found.strategy, guard, balance))
            chosen = str(Candidate(found.strategy, None, guard))
            yield name, ids, {"chosen": chosen, "balance": balance, "seconds": seconds}
        for name, more in SINGLE.items():
            yield name, self.draws(budget, **more), {}
        for name, values in self.columns.items():
            yield name, [select(self.scores | {"loss": values}, budget, "hard")], {}
        problem = prepare(self.scores, budget, by="label", floor=None, cap=None, noise_guard=0.0)
        features = problem.rows.align(self.features)
        for name, strategy in rejected.STRATEGIES.items():
            yield name, [problem.rows.ids[strategy(problem, features)]], {}

    def _draws(self, budget: int, **more: Any) -> list[np.ndarray]:
        draws = DRAWS if more["strategy"] in ("random", "flexrand", "stratified") else 1
        seeds = [100 * self.seed + draw for draw in range(draws)]
        given = {"features": self.features} | more
        return [select(self.scores, budget, seed=seed, **given) for seed in seeds]


def fine_tuned(run: Run, source: Features) -> Iterator[dict[str, Any]]:
    """Yield one row per strategy, with the accuracy of one fine-tuning run."""
    tuning = FineTuning(source)
    budget = round(FINE_TUNED * len(run.drawn.labels))
    for method in ("random", "herding", "auto"):
        ids = select(run.scores, budget, method, features=run.features, seed=run.seed)
        accuracy = tuning.accuracy(run.drawn.rows[ids], run.drawn.labels[ids], run.seed)
        yield {"keep": FINE_TUNED, "budget": budget, "method": method, "accuracy": [accuracy]}
