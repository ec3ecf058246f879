"""The tables and the figure of docs/selection.md, from the tidy Parquet.

    python benchmarks/selection/tables.py DIR/evidence.parquet --out DIR

A gap is the accuracy of a strategy minus that of the class-wise random draw on the same training
set, in points of test accuracy (mean over classes), averaged over its draws. Two 95 % intervals by
Student's t: over the seeds (each with its own training set and flips, averaged over settings), for
another draw of these data; and over the settings, a weak estimate for other data sets.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from lc_engine._util.extras import require
from lc_engine.selection.auto_gamma.constants import CANDIDATES

FEW = 30  # rows per class up to which a gain is claimed
LOSS = 0.3  # points below random that gamma="auto" must not reach
FRACTIONS = ("1 %", "2 %", "5 %", "10 %", "20 %", "30 %", "50 %", "70 %", "90 %")
PER_CLASS = tuple(f"{rows} per class" for rows in (3, 5, 10, 30, 100, 300))
FIXED = tuple(f"flexrand_{gamma:g}" for gamma in CANDIDATES)
COMPARED = (
    "flexrand_auto", "flexrand_rule", "flexrand_0.5", "random_guard", "flexrand_auto_guard",
    "easy", "hard", "easy_diverse", "stratified", "moderate", "herding", "kcenter", "entropy",
    "margin", "least_confidence", "el2n",
)  # fmt: skip

Setting = tuple[str, str, str]


class Interval(NamedTuple):
    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half:.2f}"


class Evidence:
    """Accuracy by (setting, keep, method, seed), averaged over draws."""

    def __init__(self, path: Path) -> None:
        table = require("pyarrow.parquet", "table").read_table(path).to_pylist()
        found: dict[tuple[Setting, str, str, int], list[float]] = defaultdict(list)
        self.per_class: dict[tuple[Setting, str], float] = {}
        self.chosen: dict[tuple[Setting, str], dict[int, float]] = defaultdict(dict)
        evaluated = set()
        for row in table:
            setting = (row["backbone"], row["images"], row["variant"])
            evaluation = (setting, row["method"], row["seed"], row["keep"], row["draw"])
            if evaluation in evaluated:
                raise SystemExit(
                    f"{path} holds {evaluation} twice: the test set was evaluated too often"
                )
            evaluated.add(evaluation)
            found[setting, row["keep"], row["method"], row["seed"]].append(row["accuracy"])
            self.per_class[setting, row["keep"]] = row["per_class"]
            if row["method"] == "flexrand_auto":
                self.chosen[setting, row["keep"]][row["seed"]] = row["gamma"]
        self.accuracy = {key: float(np.mean(values)) for key, values in found.items()}
        self.settings = tuple(dict.fromkeys(key[0] for key in self.accuracy))
        self.seeds = sorted({key[3] for key in self.accuracy})

    def gap(self, setting: Setting, keep: str, method: str, seed: int, base: str) -> float | None:
        one = self.accuracy.get((setting, keep, method, seed))
        other = self.accuracy.get((setting, keep, base, seed))
        return None if one is None or other is None else one - other

    def few(self) -> list[tuple[Setting, str]]:
        """Cells with at most FEW rows per class, no budget of a setting twice."""
        seen, cells = set(), []
        for (setting, keep), count in self.per_class.items():
            if count <= FEW and (setting, count) not in seen:
                seen.add((setting, count))
                cells.append((setting, keep))
        return cells

    def over_seeds(
        self, cells: list[tuple[Setting, str]], method: str, base: str = "random"
    ) -> Interval:
        values = []
        for seed in self.seeds:
            gaps = [self.gap(s, k, method, seed, base) for s, k in cells]
            if gaps and None not in gaps:
                values.append(self._balanced([s for s, _ in cells], gaps))
        return interval(values)

    def over_settings(
        self, cells: list[tuple[Setting, str]], method: str, base: str = "random"
    ) -> Interval:
        return interval(
            [
                self.over_seeds([c for c in cells if c[0] == setting], method, base).mean
                for setting in dict.fromkeys(s for s, _ in cells)
            ]
        )

    @staticmethod
    def _balanced(settings: list[Setting], gaps: list[Any]) -> float:
        by_setting: dict[Setting, list[float]] = defaultdict(list)
        for setting, value in zip(settings, gaps, strict=True):
            by_setting[setting].append(value)
        return float(np.mean([np.mean(values) for values in by_setting.values()]))


def interval(values: list[float]) -> Interval:
    if len(values) < 2:
        return Interval(float(np.mean(values)) if values else float("nan"), float("nan"))
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return Interval(float(np.mean(values)), float(student.ppf(0.975, len(values) - 1) * error))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def by_keep(evidence: Evidence, keeps: tuple[str, ...]) -> str:
    """Gap to random of every strategy at every budget, averaged over the settings that have it."""
    keeps = tuple(k for k in keeps if any(keep == k for _, keep in evidence.per_class))
    cells = {k: [(s, k) for s in evidence.settings if (s, k) in evidence.per_class] for k in keeps}
    means = {m: [evidence.over_seeds(cells[k], m) for k in keeps] for m in (*COMPARED, *FIXED)}
    base = [
        np.mean([v for key, v in evidence.accuracy.items() if key[1] == k and key[2] == "random"])
        for k in keeps
    ]
    order = np.argsort([[-value.mean for value in means[m]] for m in COMPARED], axis=0)
    rank = np.argsort(order, axis=0).mean(1) + 1
    rows = [["random (accuracy)", *(f"{value:.1f}" for value in base), ""]]
    for i in np.argsort(rank):
        method = COMPARED[i]
        rows.append([method, *(str(value) for value in means[method]), f"{rank[i]:.1f}"])
    for method in FIXED:
        if method not in COMPARED:
            rows.append([f"({method})", *(str(value) for value in means[method]), ""])
    return markdown(["gap to random", *keeps, "mean rank"], rows)


def few_rows(evidence: Evidence) -> str:
    """The claim about budgets of at most FEW rows per class."""
    cells = evidence.few()
    rows = []
    pairs = [
        ("flexrand_auto", "random"), ("flexrand_auto", "flexrand_0.5"),
        ("flexrand_rule", "random"), ("flexrand_0.5", "random"),
        ("flexrand_auto_guard", "random"), ("random_guard", "random"),
    ]  # fmt: skip
    for method, base in pairs:
        each = [evidence.over_seeds([c for c in cells if c[0] == s], method, base)
                for s in evidence.settings]  # fmt: skip
        rows.append(
            [f"{method} − {base}", str(evidence.over_seeds(cells, method, base)),
             str(evidence.over_settings(cells, method, base)), *map(str, each)]
        )  # fmt: skip
    names = [" ".join(s) for s in evidence.settings]
    return markdown([f"at most {FEW} rows per class", "over seeds", "over settings", *names], rows)


def paths(evidence: Evidence) -> str:
    """The three paths at small budgets, on the seeds that ran all three."""
    cells = evidence.few()
    names = {"calibrated": "flexrand_auto", "published": "flexrand_auto_published",
             "full model alone": "flexrand_auto_full"}  # fmt: skip
    rows = []
    for name, method in names.items():
        rows.append([name, str(evidence.over_seeds(cells, method))])
    rows.append(
        [
            "calibrated − published",
            str(evidence.over_seeds(cells, "flexrand_auto", "flexrand_auto_published")),
        ]
    )
    rows.append(
        [
            "calibrated − full model",
            str(evidence.over_seeds(cells, "flexrand_auto", "flexrand_auto_full")),
        ]
    )
    return markdown(["path", f"gap to random, at most {FEW} rows per class"], rows)


def regret(evidence: Evidence) -> str:
    """How far gamma="auto" is behind the best fixed γ in hindsight.

    "Same seeds" takes the γ (or random) of highest mean over the seeds that it is judged on, a mean
    that is biased upwards; "other seeds" picks it on every second seed and judges on the rest, and
    vice versa.
    """
    rows = []
    for label, low, high in (("all budgets", 0, 1e9), (f"≤ {FEW} per class", 0, FEW),
                             (f"> {FEW} per class", FEW + 1e-9, 1e9)):  # fmt: skip
        biased, unbiased, gains = [], [], []
        for (setting, keep), count in evidence.per_class.items():
            if not low <= count <= high:
                continue
            seeds = [s for s in evidence.seeds if (setting, keep, "random", s) in evidence.accuracy]
            names = ("random", *FIXED)
            grid = np.array(
                [[evidence.accuracy[setting, keep, m, s] for s in seeds] for m in names]
            )
            auto = np.array([evidence.accuracy[setting, keep, "flexrand_auto", s] for s in seeds])
            biased.append(grid.mean(1).max() - auto.mean())
            gains.append(auto.mean() - grid[0].mean())
            for half in (0, 1):
                judge = np.arange(len(seeds)) % 2 == half
                best = grid[:, ~judge].mean(1).argmax()
                unbiased.append(grid[best, judge].mean() - auto[judge].mean())
        if not gains:
            continue
        figures = [np.mean(gains), np.mean(biased), np.mean(unbiased), np.min(gains)]
        below = str(sum(gain < -LOSS for gain in gains))
        rows.append([label, str(len(gains)), *(f"{value:+.2f}" for value in figures), below])
    header = ["budgets", "cells", "auto − random", "best fixed − auto, same seeds"]
    header += ["best fixed − auto, other seeds", "worst cell, auto − random"]
    header += [f"cells below -{LOSS}"]
    return markdown(header, rows)


def worst(evidence: Evidence) -> str:
    """The cells where gamma="auto" is furthest below random."""
    cells = [
        (evidence.over_seeds([cell], "flexrand_auto"), cell, evidence.chosen[cell])
        for cell in evidence.per_class
    ]
    rows = [
        [" ".join(setting), keep, str(gap), ", ".join(f"{g:g}" for g in chosen.values())]
        for gap, (setting, keep), chosen in sorted(cells, key=lambda c: c[0].mean)[:8]
    ]
    return markdown(["setting", "keep", "auto − random", "gamma by seed (0: random)"], rows)


def plot(evidence: Evidence, out: Path) -> None:
    """Accuracy gap to random by keep fraction, averaged and per setting."""
    plt = require("matplotlib.pyplot", "report")
    shown = ("flexrand_auto", "flexrand_0.5", "easy", "hard", "stratified", "herding", "kcenter",
             "el2n", "easy_diverse", "moderate")  # fmt: skip
    panels = [("mean over the settings", list(evidence.settings))]
    panels += [(" ".join(s), [s]) for s in evidence.settings]
    figure, axes = plt.subplots(
        2, (len(panels) + 1) // 2, figsize=(17, 8), sharex=True, layout="constrained"
    )
    x = [float(k.split()[0]) for k in FRACTIONS]
    for axis, (title, chosen) in zip(axes.flat, panels, strict=False):
        for i, method in enumerate(shown):
            gaps = [evidence.over_seeds([(s, k) for s in chosen], method) for k in FRACTIONS]
            style = {"lw": 2.5, "zorder": 5} if method == "flexrand_auto" else {"lw": 1.2}
            means = np.array([g.mean for g in gaps])
            axis.plot(x, means, marker="o", ms=3, color=f"C{i}", label=method, **style)
            if method == "flexrand_auto":
                half = np.array([g.half for g in gaps])
                axis.fill_between(x, means - half, means + half, color=f"C{i}", alpha=0.2)
        axis.axhline(0, color="black", lw=0.8)
        axis.set(
            title=title, xscale="log", ylim=(-15, 13), xticks=x, xticklabels=[f"{v:g}" for v in x]
        )
        axis.minorticks_off()
        axis.tick_params(axis="x", labelsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper")
    figure.supxlabel("kept (%)")
    figure.supylabel("accuracy − class-wise random (points)")
    figure.savefig(out / "selection.png", dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evidence", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    evidence = Evidence(options.evidence)
    sections = {
        "Few rows per class": few_rows(evidence),
        "Regret": regret(evidence),
        "Worst cells": worst(evidence),
        "Paths": paths(evidence),
        "By fraction kept": by_keep(evidence, FRACTIONS),
        "By rows per class": by_keep(evidence, PER_CLASS),
    }
    text = "\n\n".join(f"### {title}\n\n{table}" for title, table in sections.items())
    (options.out / "tables.md").write_text(text + "\n")
    plot(evidence, options.out)
    print(text)


if __name__ == "__main__":
    main()
