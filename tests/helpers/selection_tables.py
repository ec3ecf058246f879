"""Score tables for the tests of selection."""

from __future__ import annotations

from typing import Any

import numpy as np


def mapping(seed: int, samples: int, groups: int = 4, *, ties: bool = False) -> dict[str, Any]:
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


def shuffled(scores: dict[str, Any], seed: int, *also: np.ndarray) -> tuple[Any, ...]:
    """The same rows in another order, and arrays beside them likewise."""
    order = np.random.default_rng(seed).permutation(len(scores["id"]))
    return ({k: np.asarray(v)[order] for k, v in scores.items()}, *(a[order] for a in also))


def labels_of(scores: dict[str, Any], ids: np.ndarray) -> np.ndarray:
    """Labels of the ids kept."""
    where = dict(zip(scores["id"].tolist(), scores["label"].tolist(), strict=True))
    return np.array([where[i] for i in ids.tolist()])
