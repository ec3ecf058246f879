"""Random scores for the tests of selection: as columns and as a score table."""

from __future__ import annotations

from typing import Any

import numpy as np

from lc_engine.data.table import ScoreTable


def random_columns(
    seed: int, samples: int, groups: int = 4, *, ties: bool = False
) -> dict[str, Any]:
    """Columns of `samples` rows over `groups` uneven classes; ids in random order."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(groups))
    labels = rng.choice(groups, size=samples, p=share)
    lc = rng.random(samples)
    if ties:
        lc = np.round(lc, 1)
    return {
        "id": rng.permutation(10 * samples)[:samples],
        "label": labels,
        "lc": lc.astype(np.float32),
        "loss": -np.log(lc + 1e-3).astype(np.float32),
        "lc_std": rng.random(samples).astype(np.float32) / 4,
    }


def as_table(columns: dict[str, Any]) -> ScoreTable:
    """The columns as a score table; rows have status "ok" unless there is a column "status"."""
    status = list(columns.get("status", ["ok"] * len(columns["id"])))
    return ScoreTable.from_arrays(
        ids=np.asarray(columns["id"]),
        labels=columns["label"],
        lc=columns["lc"],
        loss=columns["loss"],
        lc_std=columns["lc_std"],
        status=status,
        detail=["" if one == "ok" else "why" for one in status],
        metadata={},
    )


def shuffled(columns: dict[str, Any], seed: int, *also: np.ndarray) -> tuple[Any, ...]:
    """The same rows in another order, and arrays beside them likewise."""
    order = np.random.default_rng(seed).permutation(len(columns["id"]))
    return ({k: np.asarray(v)[order] for k, v in columns.items()}, *(a[order] for a in also))


def labels_of(columns: dict[str, Any], ids: np.ndarray) -> np.ndarray:
    """Labels of the ids kept."""
    by_id = dict(zip(columns["id"].tolist(), columns["label"].tolist(), strict=True))
    return np.array([by_id[i] for i in ids.tolist()])
