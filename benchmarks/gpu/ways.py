"""Time ways to score the same rows, one after the other, against the first."""

from __future__ import annotations

import csv
import time
from typing import TYPE_CHECKING

import torch
from scipy import stats

from benchmarks.gpu.device import device_name, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

COLUMNS = ("way", "seconds", "times", "spearman", "difference", "device", "torch")


def time_ways(
    ways: Mapping[str, Callable[[], np.ndarray]],
    described: Mapping[str, object],
    difference: Callable[[np.ndarray, np.ndarray], float],
    tolerance: float,
    device: torch.device,
    out: Path,
) -> list[str]:
    """Run each way once, write a table, and return what is wrong with those of the engine.

    Args:
        ways: by name; each returns scores (N,). The others are compared with the first.
        described: further columns of the table, the same for all.
        difference: of two ways' scores.
        tolerance: the most that it may be.
        device: to wait for.
        out: of the table.
    """
    wrong: list[str] = []
    base: np.ndarray | None = None
    first = 0.0
    with out.open("w", newline="") as file:
        table = csv.DictWriter(file, (*described, *COLUMNS), lineterminator="\n")
        table.writeheader()
        for way, run in ways.items():
            wait(device)
            began = time.perf_counter()
            found = run()
            seconds = time.perf_counter() - began
            if base is None:
                base, first = found, seconds
            off = difference(found, base)
            values = (
                way, seconds, first / seconds, float(stats.spearmanr(found, base).statistic), off,
                device_name(device), torch.__version__,
            )  # fmt: skip
            row = {**described, **dict(zip(COLUMNS, values, strict=True))}
            table.writerow(row)
            file.flush()
            print(row, flush=True)
            if way.startswith("lc_engine") and not off <= tolerance:
                wrong.append(f"{way}: {off:.1e} from the loop")
    return wrong
