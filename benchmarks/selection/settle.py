"""The constants of gamma="auto": rules compared on held-out training rows.

    python benchmarks/selection/settle.py --cache DIR

Rules are judged on the 20 % of the pool of training images that a seed does not train on, with true
labels; the seeds differ from those of the evidence, and only the small network is used. No test
image is read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import settings
import torch
from evidence import budgets
from features import Features
from probes import Judge
from tables import FEW, LOSS, markdown
from threadpoolctl import threadpool_limits

from lc_engine.selection import select
from lc_engine.selection.auto_gamma.constants import CANDIDATES, FINALISTS, FOLDS
from lc_engine.selection.auto_gamma.cross_validation import CrossValidation
from lc_engine.selection.problem import prepare

SEEDS = range(100, 106)
DRAWS = 10
SETTINGS = (
    settings.Setting("cnn", "fashion", "plain"),
    settings.Setting("cnn", "fashion", "longtail"),
    settings.Setting("cnn", "fashion", "noisy"),
    settings.Setting("cnn", "mnist", "plain"),
    settings.Setting("cnn", "mnist", "noisy"),
)
# (draws of every candidate, draws of a finalist, standard error over, number of standard errors)
RULES = (
    (12, 36, "draws", 1.0), (12, 36, "folds", 1.0), (12, 36, "folds", 1.5), (12, 36, "folds", 2.0),
    (24, 72, "draws", 1.0), (24, 72, "folds", 1.0), (8, 24, "folds", 1.0),
)  # fmt: skip


def choose(gains: dict[float, np.ndarray], rule: tuple[int, int, str, float]) -> float:
    """γ by a rule, 0 for random, from the gains of every draw."""
    first, last, over, times = rule
    finalists = sorted(CANDIDATES, key=lambda gamma: -gains[gamma][:first].mean())[:FINALISTS]
    best = max(finalists, key=lambda gamma: gains[gamma][:last].mean())
    gain = gains[best][:last]
    values = gain if over == "draws" else gain.reshape(-1, FOLDS).mean(0)
    return best if gain.mean() > times * values.std(ddof=1) / len(values) ** 0.5 else 0.0


def cells(source: Features, setting: settings.Setting, seed: int) -> list[dict[str, Any]]:
    """For every budget: the gains of the trial's draws, and accuracy on held-out rows by γ."""
    labels, features = source.images.train_labels, source.at(1.0)
    drawn = settings.draw(setting, labels, seed)
    plain = settings.draw(setting._replace(variant="plain"), labels, seed)
    held = np.setdiff1d(np.arange(len(labels)), plain.rows)
    table = settings.score_columns(source, drawn, "calibrated")
    judge = Judge(features[drawn.rows], drawn.labels, features[held], labels[held])
    found = []
    for keep, budget in budgets(len(drawn.rows), len(np.unique(drawn.labels))):
        problem = prepare(table, budget, by="label", floor=None, cap=None, noise_guard=0.0)
        rng = np.random.default_rng(seed)
        trial = CrossValidation(problem, problem.rows.hardness("loss"), features[drawn.rows], rng)
        draws = range(max(rule[1] for rule in RULES))
        base = trial.accuracy(0.0, draws)
        subsets = [
            select(table, budget, gamma=gamma, seed=DRAWS * seed + draw)
            for gamma in (0.0, *CANDIDATES)
            for draw in range(DRAWS)
        ]
        accuracy = np.array(judge(subsets)).reshape(-1, DRAWS).mean(1)
        found.append(
            {
                "cell": (setting, keep),
                "per_class": budget / len(np.unique(drawn.labels)),
                "gains": {gamma: trial.accuracy(gamma, draws) - base for gamma in CANDIDATES},
                "held_out": dict(zip((0.0, *CANDIDATES), accuracy - accuracy[0], strict=True)),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    with threadpool_limits(1):
        for setting in SETTINGS:
            source = Features(setting.backbone, setting.images, options.cache)
            for seed in SEEDS:
                found += cells(source, setting, seed)
    print(table(found))


def table(found: list[dict[str, Any]]) -> str:
    """Gain over random on held-out rows, by rule, averaged over seeds and then over cells."""
    names = list(dict.fromkeys(row["cell"] for row in found))
    groups = [[row for row in found if row["cell"] == name] for name in names]
    few = np.array([rows[0]["per_class"] <= FEW for rows in groups])
    best = np.array(
        [max(np.mean([r["held_out"][g] for r in rows]) for g in (0.0, *CANDIDATES))
         for rows in groups]
    )  # fmt: skip
    lines = []
    for rule in RULES:
        gain = np.array(
            [np.mean([r["held_out"][choose(r["gains"], rule)] for r in rows]) for rows in groups]
        )
        figures = [gain[few].mean(), gain[~few].mean(), np.mean(best - gain), gain.min()]
        first, last, over, times = rule
        lines.append(
            [f"{first} + {last - first}", f"{times:g} × over {over}",
             *(f"{value:+.2f}" for value in figures), f"{(gain < -LOSS).sum()} of {len(gain)}"]
        )  # fmt: skip
    header = ["draws", "standard error to exceed", f"gain, ≤ {FEW} per class", "gain, more"]
    return markdown([*header, "best fixed γ − auto", "worst cell", f"cells below -{LOSS}"], lines)


if __name__ == "__main__":
    main()
