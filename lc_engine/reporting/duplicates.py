"""Near-duplicates: pairs of rows whose features point in the same direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.data.features import Features

# Rows that are compared with each other, at most: 8,192 take 2 · 8,192² · D / 2 operations.
COMPARED: Final = 8192
# Least cosine of the centred features of a pair.
THRESHOLD: Final = 0.95
_BLOCK: Final = 1024


class Duplicate(NamedTuple):
    """Two rows and the cosine of their centred features."""

    first: int
    second: int
    cosine: float


def near_duplicates(
    features: Features, rows: NDArray[np.int64], most: int, seed: int
) -> list[Duplicate]:
    """Return the most similar pairs of rows, the most similar first.

    Features of many networks share a large mean, which is taken off before the cosine: without it
    all rows are similar.

    Args:
        features: (N, D), NaN for a row without any.
        rows: (M,) row numbers to compare; of more than `COMPARED` a random choice.
        most: pairs.
        seed: of the choice.
    """
    if len(rows) > COMPARED:
        rows = np.sort(np.random.default_rng(seed).choice(rows, COMPARED, replace=False))
    x = np.asarray(features[rows], np.float32)
    finite = np.isfinite(x).all(1) if x.size else np.zeros(len(x), bool)
    rows, x = rows[finite], x[finite]
    if len(x) < 2:
        return []
    x -= x.mean(0)
    norm = np.linalg.norm(x, axis=1)
    rows, x = rows[norm > 0], x[norm > 0] / norm[norm > 0, None]
    found: list[Duplicate] = []
    for start in range(0, len(x), _BLOCK):
        cosines = x[start : start + _BLOCK] @ x[start:].T
        cosines[np.tril_indices(len(cosines))] = -1  # each pair once, no row with itself
        i, j = np.nonzero(cosines >= THRESHOLD)
        best = np.argsort(-cosines[i, j], kind="stable")[:most]
        found += [
            Duplicate(int(rows[start + a]), int(rows[start + b]), float(cosines[a, b]))
            for a, b in zip(i[best].tolist(), j[best].tolist(), strict=True)
        ]
        found = sorted(found, key=lambda pair: -pair.cosine)[:most]
    return found
