"""What herding one group of 10**4 rows loses by reading its candidates in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from lc_engine.selection import select
from lc_engine.selection.linear_probe import ridge_predict
from lc_engine.selection.strategies import candidate_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.selection.features import Features

ROWS, SHARE = 10_000, 0.1


def rows(source: Features, seed: int) -> Iterator[dict[str, Any]]:
    """Yield one row per way; rows to choose from and the rest are of both parts of the images."""
    features = np.concatenate([source.of("train"), source.of("test")])
    labels = np.concatenate([source.images.train_labels, source.images.test_labels])
    order = np.random.default_rng(seed).permutation(len(labels))
    own, rest = np.sort(order[:ROWS]), order[ROWS:]
    scores = {"id": np.arange(ROWS), "label": labels[own], "loss": np.zeros(ROWS, np.float32)}
    for name, pairs in (("blocks", candidate_blocks.EXACT_PAIRS), ("all at once", ROWS**2)):
        with mock.patch.object(candidate_blocks, "EXACT_PAIRS", pairs):
            ids = own[select(scores, SHARE, "herding", by=None, features=features[own])]
        yield {"keep": SHARE, "method": name, "accuracy": [_accuracy(features, labels, ids, rest)]}
    ids = own[select(scores, SHARE, "random", by=None, seed=seed)]
    yield {"keep": SHARE, "method": "random", "accuracy": [_accuracy(features, labels, ids, rest)]}


def _accuracy(
    features: np.ndarray, labels: np.ndarray, kept: np.ndarray, rest: np.ndarray
) -> float:
    """Accuracy in points on the rest, of balanced classes."""
    classes = int(labels.max()) + 1
    found = ridge_predict(features[kept], labels[kept], classes, features[rest])
    return float(100 * np.mean(found == labels[rest]))
