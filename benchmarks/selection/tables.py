"""The tables of docs/selection.md.

A gap is the accuracy of a strategy minus that of the class-wise random draw on the same training
set, in points of the mean over classes. ± is half of a 95 % interval by Student's t over the seeds,
each of which has its own training set and flips.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from scipy.stats import t as student

Cell = tuple[str, str, float]  # image set, variant, share kept
AUTO, SAME_SHARES = "auto", "auto, α = 1"
LOSS = 0.3  # points that "auto" should not be behind the best strategy, or below random


def text(rows: list[dict[str, Any]]) -> str:
    probe = [row for row in rows if row["of"]["part"] in ("probe", "held out")]
    tuned = [row for row in rows if row["of"]["part"] == "fine-tuning"]
    along = [row for row in rows if row["of"]["part"] == "paths"]
    blocks = [row for row in rows if row["of"]["part"] == "blocks"]
    found: list[str] = []
    if probe:
        gaps = Gaps(probe)
        found += ["### Strategies", strategies(gaps), "### Auto", auto(gaps), regret(gaps)]
        found += [furthest_behind(gaps), chosen(probe)]
    if tuned:
        found += ["### Fine-tuning", cells(Gaps(tuned))]
    if blocks:
        gaps = Gaps(blocks)
        found += ["### Blocks", cells(gaps), gaps.mean([*gaps.by], "blocks", "all at once")]
    if along:
        found += ["### Paths", paths(along)]
    return "\n\n".join(found)


class Gaps:
    """Gap to random by cell, strategy and seed."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        accuracy: dict[tuple[Cell, int], dict[str, float]] = defaultdict(dict)
        for row in rows:
            of = row["of"]
            cell = (of["images"], of["variant"], row["keep"])
            accuracy[cell, of["seed"]][row["method"]] = float(np.mean(row["accuracy"]))
        self.by: dict[Cell, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        self.random: dict[Cell, list[float]] = defaultdict(list)
        for (cell, seed), by_method in accuracy.items():
            self.random[cell].append(by_method["random"])
            for method, value in by_method.items():
                self.by[cell][method][seed] = value - by_method["random"]

    def seeds(self) -> list[int]:
        return sorted({seed for by in self.by.values() for seed in by["random"]})

    def mean(self, cells: list[Cell], method: str, base: str = "random") -> str:
        """Mean over cells with the interval over seeds."""
        values = [
            np.mean([self.by[c][method][seed] - self.by[c][base][seed] for c in cells])
            for seed in self.seeds()
        ]
        return interval(values)

    def singles(self, cell: Cell) -> dict[str, float]:
        """Mean gap of each single strategy at the shares of the data."""
        return {
            method: float(np.mean([*by_seed.values()]))
            for method, by_seed in self.by[cell].items()
            if not method.startswith(AUTO)
        }


def interval(values: list[Any]) -> str:
    half = float("nan")
    if len(values) > 1:
        error = np.std(values, ddof=1) / len(values) ** 0.5
        half = student.ppf(0.975, len(values) - 1) * error
    return f"{np.mean(values):+.2f} ± {half:.2f}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def strategies(gaps: Gaps) -> str:
    """Gap to random by share kept, over all settings that have it; best first."""
    keeps = sorted({cell[2] for cell in gaps.by})
    cells = {keep: [cell for cell in gaps.by if cell[2] == keep] for keep in keeps}
    every = [*gaps.by]
    methods = [m for m in gaps.by[every[0]] if all(m in gaps.by[c] for c in every)]
    mean = {m: np.mean([np.mean([*gaps.by[c][m].values()]) for c in every]) for m in methods}
    rows = [
        [
            m,
            *(f"{np.mean([[*gaps.by[c][m].values()] for c in cells[k]]):+.1f}" for k in keeps),
            gaps.mean(every, m),
        ]
        for m in sorted(methods, key=lambda m: -mean[m])
    ]
    return markdown(["gap to random", *(f"{100 * k:g} %" for k in keeps), "mean"], rows)


def auto(gaps: Gaps) -> str:
    """By variant and share kept, over the image sets: auto, herding and the best single."""
    rows = []
    for variant in dict.fromkeys(cell[1] for cell in gaps.by):
        for keep in sorted({cell[2] for cell in gaps.by if cell[1] == variant}):
            cells = [cell for cell in gaps.by if cell[1:] == (variant, keep)]
            accuracy = np.mean([value for cell in cells for value in gaps.random[cell]])
            best = np.mean([max(gaps.singles(cell).values()) for cell in cells])
            by_method = [gaps.mean(cells, m) for m in (AUTO, SAME_SHARES, "herding")]
            name = f"{variant}, {100 * keep:g} %"
            rows.append([name, f"{accuracy:.1f}", *by_method, f"{best:+.2f}"])
    header = ["", "random (accuracy)", AUTO, SAME_SHARES, "herding", "best single of each set"]
    return markdown(header, rows)


def regret(gaps: Gaps) -> str:
    """How far auto is behind the best single strategy, above herding and above random.

    "Same seeds": the best by its mean over the seeds that it is judged on, which is biased upwards;
    "other seeds": of each seed, the best by its mean over the others.
    """
    rows = []
    for name in (AUTO, SAME_SHARES):
        behind, other, low = [], [], []
        for cell, by in gaps.by.items():
            seeds = [*by["random"]]
            singles = [*gaps.singles(cell)]
            grid = np.array([[by[m][seed] for seed in seeds] for m in singles])
            mine = np.array([by[name][seed] for seed in seeds])
            behind.append(grid.mean(1).max() - mine.mean())
            low.append(mine.mean())
            best = [grid[:, np.arange(len(seeds)) != i].mean(1).argmax() for i in range(len(seeds))]
            other.append(grid[best, range(len(seeds))].mean() - mine.mean())
        figures = [f"{np.mean(behind):+.2f}", f"{np.mean(other):+.2f}", f"{np.max(behind):+.2f}"]
        count = f"{sum(b > LOSS for b in behind)} of {len(behind)}"
        above = gaps.mean([*gaps.by], name, "herding")
        rows.append([name, *figures, count, above, f"{np.min(low):+.2f}"])
    header = ["", "best single − auto, same seeds", "other seeds", "largest", f"above {LOSS}"]
    return markdown([*header, "auto − herding", "lowest auto − random"], rows)


def furthest_behind(gaps: Gaps, count: int = 8) -> str:
    """The cells where auto at the shares of the data is furthest behind the best strategy."""
    rows = []
    for cell, by in gaps.by.items():
        singles = gaps.singles(cell)
        best = max(singles, key=lambda method: singles[method])
        mine = float(np.mean([*by[SAME_SHARES].values()]))
        difference = gaps.mean([cell], best, SAME_SHARES)
        name = f"{cell[0]}, {cell[1]}, {100 * cell[2]:g} %"
        rows.append((singles[best] - mine, [name, best, difference, gaps.mean([cell], AUTO)]))
    header = ["furthest behind", "best single", "best − auto at α = 1", "auto − random"]
    return markdown(header, [row for _, row in sorted(rows, key=lambda row: -row[0])[:count]])


def chosen(rows: list[dict[str, Any]]) -> str:
    """How often auto chose what, and how long the choice took."""
    mine = [row for row in rows if row["method"] == SAME_SHARES]
    names = [row["chosen"] for row in mine]
    often = sorted(set(names), key=lambda name: -names.count(name))
    times = [row["seconds"] for row in mine]
    listed = ", ".join(f"{name} {names.count(name)}" for name in often)
    return (
        f"Chosen at α = 1: {listed}. CPU seconds of a choice: {np.mean(times):.2f} on average, "
        f"{np.max(times):.2f} at most."
    )


def cells(gaps: Gaps) -> str:
    """Gap to random of every cell."""
    methods = [m for m in next(iter(gaps.by.values())) if m != "random"]
    rows = [
        [", ".join([*cell[:2], f"{100 * cell[2]:g} %"]), f"{np.mean(gaps.random[cell]):.1f}"]
        + [gaps.mean([cell], m) for m in methods]
        for cell in gaps.by
    ]
    rows.append(["all", "", *(gaps.mean([*gaps.by], m) for m in methods)])
    return markdown(["gap to random", "random (accuracy)", *methods], rows)


def paths(rows: list[dict[str, Any]]) -> str:
    """The same selections by the scores of a path and by those of the whole model."""
    value: dict[tuple[str, str], dict[Any, float]] = defaultdict(dict)
    for row in rows:
        of = row["of"]
        on = f"{of['backbone']}, {of['images']}"
        key = (of["variant"], row["keep"], row["method"], of["seed"])
        value[on, row["path"]][key] = float(np.mean(row["accuracy"]))
    lines = []
    for (on, path), by in value.items():
        whole = value[on, "full"]
        found = np.mean([v for key, v in by.items() if key[2] == "AUROC"])
        differences = defaultdict(list)
        for key, v in by.items():
            if key[2] != "AUROC":
                differences[key[:3]].append(v - whole[key])
        if path == "full":
            lines.append([on, path, f"{found / 100:.3f}", "", "", ""])
            continue
        by_seed = np.mean([*differences.values()], axis=0)
        ends = [_ends(values) for values in differences.values()]
        worse = sum(high < 0 for _, high in ends)
        better = sum(low > 0 for low, _ in ends)
        count = [str(better), str(worse), str(len(ends))]
        lines.append([on, path, f"{found / 100:.3f}", interval([*by_seed]), *count[:2]])
    header = ["on", "path", "flipped labels, AUROC", "path − whole model", "better", "worse"]
    return markdown(header, lines)


def _ends(values: list[float]) -> tuple[float, float]:
    error = np.std(values, ddof=1) / len(values) ** 0.5 * student.ppf(0.975, len(values) - 1)
    return float(np.mean(values) - error), float(np.mean(values) + error)
