"""Every strategy on every setting at every budget: one tidy Parquet.

    python benchmarks/selection/features.py --cache DIR
    python benchmarks/selection/evidence.py --cache DIR --out DIR/evidence.parquet
    python benchmarks/selection/tables.py DIR/evidence.parquet --out DIR

Nothing here is tuned: strategies run with the library's defaults, and γ is fixed or chosen by
gamma="auto" from the training rows. The test set is evaluated once per (setting, strategy, seed,
keep, draw), for the accuracy that is written out; no choice reads it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import settings
import torch
from features import Features
from probes import Judge
from threadpoolctl import threadpool_limits

from lc_engine._util.extras import require
from lc_engine.selection import GammaChoice, choose_gamma, choose_strategy, select
from lc_engine.selection.auto_gamma.constants import CANDIDATES
from lc_engine.selection.problem import prepare
from lc_engine.selection.strategies.uncertainty import el2n_scores, uncertainty_scores

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
PER_CLASS = (3, 5, 10, 30, 100, 300)
SEEDS, DRAWS = 5, 6
LARGE, FEW_DRAWS = 1_000, 2  # larger subsets vary less from draw to draw
PATHS = ("calibrated", "published", "full")
FEW = 30  # rows per class up to which the paths are compared
GUARD = 0.1
FROM_FEATURES = ("easy_diverse", "moderate", "herding", "kcenter")


class Run:
    """One training set of one setting: its scores, its judge and what all budgets share."""

    def __init__(self, source: Features, setting: settings.Setting, seed: int) -> None:
        self.setting, self.seed = setting, seed
        drawn = settings.draw(setting, source.images.train_labels, seed)
        self.features = source.at(1.0)[drawn.rows]
        self.labels = drawn.labels
        self.scores = {path: settings.score_columns(source, drawn, path) for path in PATHS}
        self.judge = Judge(
            self.features, self.labels, source.at(1.0, "test"), source.images.test_labels
        )
        rng = np.random.default_rng(seed)
        self.uncertain = uncertainty_scores(self.features, self.labels, rng)
        self.uncertain["el2n"] = el2n_scores(self.features, self.labels, rng)

    def rows(self, keep: str, budget: int) -> list[dict[str, Any]]:
        table = self.scores["calibrated"]
        classes = len(np.unique(self.labels))
        found: list[dict[str, Any]] = []
        subsets: list[np.ndarray] = []

        def add(method: str, draw: int, ids: np.ndarray, **more: Any) -> None:
            found.append(
                {
                    "backbone": self.setting.backbone,
                    "images": Path(self.setting.images).name,
                    "variant": self.setting.variant,
                    "method": method,
                    "keep": keep,
                    "budget": budget,
                    "rows": len(self.labels),
                    "per_class": budget / classes,
                    "seed": self.seed,
                    "draw": draw,
                    "gamma": float("nan"),
                    "chosen": "",
                    "seconds": float("nan"),
                }
                | more
            )
            subsets.append(ids)

        paths = PATHS if budget <= FEW * classes else PATHS[:1]
        chosen = {path: self.auto(path, budget) for path in paths}
        by_rule = self.auto("calibrated", budget, trial=False)
        behind_guard = self.auto("calibrated", budget, noise_guard=GUARD)
        for draw in range(FEW_DRAWS if budget > LARGE else DRAWS):
            seed = 1_000 * self.seed + draw
            add("random", draw, select(table, budget, "random", seed=seed))
            guarded = select(table, budget, "random", seed=seed, noise_guard=GUARD)
            add("random_guard", draw, guarded)
            add("stratified", draw, select(table, budget, "stratified", seed=seed))
            for gamma in CANDIDATES:
                ids = select(table, budget, gamma=gamma, seed=seed)
                add(f"flexrand_{gamma:g}", draw, ids, gamma=gamma)
            for path, choice in chosen.items():
                ids = select(self.scores[path], budget, gamma=choice.gamma, seed=seed)
                name = "flexrand_auto" if path == "calibrated" else f"flexrand_auto_{path}"
                add(name, draw, ids, gamma=choice.gamma, seconds=choice.seconds)
            ids = select(table, budget, gamma=by_rule.gamma, seed=seed)
            add("flexrand_rule", draw, ids, gamma=by_rule.gamma)
            gamma = behind_guard.gamma
            ids = select(table, budget, gamma=gamma, seed=seed, noise_guard=GUARD)
            add("flexrand_auto_guard", draw, ids, gamma=gamma, seconds=behind_guard.seconds)
        best = choose_strategy(table, budget, features=self.features, seed=self.seed)
        problem = prepare(table, budget, by="label", floor=None, cap=None, noise_guard=0.0)
        aligned = problem.rows.align(self.features)
        for draw in range(DRAWS if best.candidate.drawn else 1):
            rng = np.random.default_rng(1_000 * self.seed + draw)
            ids = problem.rows.ids[best.candidate.keep(problem, aligned, "loss", rng)]
            add("auto", draw, ids, chosen=str(best.candidate), seconds=best.seconds)
        guarded = select(table, budget, "herding", features=self.features, noise_guard=GUARD)
        add("herding_guard", 0, guarded)
        for method in ("easy", "hard"):
            add(method, 0, select(table, budget, method))
        for method in FROM_FEATURES:
            add(method, 0, select(table, budget, method, features=self.features, seed=self.seed))
        for method, uncertainty in self.uncertain.items():
            add(method, 0, select(table | {"loss": uncertainty}, budget, "hard"))
        for row, accuracy in zip(found, self.judge(subsets), strict=True):
            row["accuracy"] = accuracy
        return found

    def auto(
        self, path: str, budget: int, *, trial: bool = True, noise_guard: float = 0.0
    ) -> GammaChoice:
        features = self.features if trial else None
        scores = self.scores[path]
        return choose_gamma(
            scores, budget, features=features, seed=self.seed, noise_guard=noise_guard
        )


def budgets(rows: int, classes: int) -> list[tuple[str, int]]:
    """Name and size of each subset: at least one row per class, but not all rows."""
    wanted = [(f"{100 * f:g} %", round(f * rows)) for f in FRACTIONS if f * rows >= classes]
    wanted += [(f"{n} per class", n * classes) for n in PER_CLASS if n * classes < 0.95 * rows]
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="an image folder to run instead, on lite0")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
    chosen = settings.ALL
    if options.folder:
        chosen = tuple(
            settings.Setting("lite0", str(options.folder), v) for v in ("plain", "noisy")
        )
    rows: list[dict[str, Any]] = []
    with threadpool_limits(1):
        for setting in chosen:
            started = time.process_time()
            source = Features(setting.backbone, setting.images, options.cache)
            for seed in range(SEEDS):
                run = Run(source, setting, seed)
                for keep, budget in budgets(len(run.labels), len(np.unique(run.labels))):
                    rows += run.rows(keep, budget)
                parquet.write_table(pa.Table.from_pylist(rows), options.out)
            print(f"{setting}: {time.process_time() - started:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
