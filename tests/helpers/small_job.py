"""A small job on every kind of data, and what its folder holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import lc_engine as lc
from helpers import kinds_of_data
from helpers.feature_run import contents
from helpers.kinds_of_data import IMAGES, write
from lc_engine.data.table import ScoreTable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SHARD_ROWS", "contents", "finished", "run", "write"]

SHARD_ROWS = 5


def run(
    kind: str, data: Path, out: Path, progress: Callable[[str, int, int], None] | None = None
) -> None:
    """Score 12 rows in 3 parts; the class means are learnt first."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        width = 60 if kind in IMAGES else 6
        model = nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3))
    scorer = lc.Scorer(model, path=lc.LearningPath.linear(2, 0.5, 1.0))
    options: dict[str, Any] = {"num_workers": 1} if kind in IMAGES else {}
    source = kinds_of_data.opened(kind, data, **options)
    lc.score(scorer, source, out, batch_size=2, shard_rows=SHARD_ROWS, progress=progress or False)


def finished(out: Path) -> Any:
    """Return the rows of a folder that reads as finished; None for any other."""
    try:
        return ScoreTable.read(out).table.to_pydict()
    except (OSError, ValueError):
        return None
