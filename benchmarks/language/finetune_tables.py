"""Tables of the results of `benchmarks.language.finetune`, in Markdown."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from scipy.stats import spearmanr


def print_tables(records: list[dict[str, Any]]) -> None:
    """Print what each score finds, what each selection gains, and what the proxies say of it."""
    print("| wrong answers | by | AUROC | wrong in the worst tenth |\n|---|---|---|---|")
    scores = grouped(records, "found", "set", "setting", "by")
    for (name, setting, by), rows in scores.items():
        auroc, tenth = (np.mean([row[key] for row in rows]) for key in ("auroc", "worst tenth"))
        print(f"| {name}, {setting} | {by} | {auroc:.3f} | {100 * tenth:.0f} % |")
    print("\n| set | strategy | gain over random, nats | wrong rows | ridge | clusters |")
    print("|---|---|---|---|---|---|")
    runs = grouped(records, "trained", "set", "setting")
    for (name, setting), rows in runs.items():
        by_strategy = gains(rows)
        for strategy, each in by_strategy.items():
            nll, spread = summary(each["nll"])
            wrong = 100 * np.mean([r["wrong"] for r in rows if r["strategy"] == strategy])
            proxies = " | ".join(f"{np.mean(each[key]):+.3f}" for key in ("ridge", "clusters"))
            where = f"| {name}, {setting} | {strategy} "
            print(f"{where}| {-nll:+.4f} ± {spread:.4f} | {wrong:.0f} % | {proxies} |")
        for proxy in ("ridge", "clusters"):
            others = [each for strategy, each in by_strategy.items() if strategy in CHOOSABLE]
            means = [(np.mean(each[proxy]), -np.mean(each["nll"])) for each in others]
            rank = spearmanr(*zip(*means, strict=True)).statistic
            print(f"{name}, {setting}: rank correlation of gain and {proxy} {rank:+.2f}")
            picked = [
                max((each[proxy][seed], -each["nll"][seed]) for each in others)[1]
                for seed in range(len(others[0]["nll"]))
            ]
            print(f"{name}, {setting}: gain of what {proxy} picks {np.mean(picked):+.4f}")


# What a trial could choose from: all but what needs to know which rows are wrong.
CHOOSABLE = (
    "random",
    "easy",
    "highest ifd below 1",
    "ifd + nll guard, random",
    "ifd guard, herding",
    "herding, mean",
    "herding, weighted_mean",
    "kcenter, mean",
    "easy_diverse, mean",
)


def grouped(
    records: list[dict[str, Any]], kind: str, *keys: str
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    found = defaultdict(list)
    for record in records:
        if record["kind"] == kind:
            found[tuple(record[key] for key in keys)].append(record)
    return found


def gains(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return, by strategy, each number's difference from random's, one per seed."""
    found: dict[str, dict[str, list[float]]] = {}
    seeds = sorted({row["seed"] for row in rows})
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        found[strategy] = {
            key: [
                mean(rows, key, strategy, seed) - mean(rows, key, "random", seed) for seed in seeds
            ]
            for key in ("nll", "ridge", "clusters")
        }
    return found


def mean(rows: list[dict[str, Any]], key: str, strategy: str, seed: int) -> float:
    return float(np.mean([r[key] for r in rows if (r["strategy"], r["seed"]) == (strategy, seed)]))


def summary(values: list[float]) -> tuple[float, float]:
    """Return the mean over seeds and its standard error, NaN of one seed."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
