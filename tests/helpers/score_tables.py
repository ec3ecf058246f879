"""Random score tables."""

from __future__ import annotations

import numpy as np

from lc_engine.data.table import ScoreTable

METADATA = {
    "model_digest": "m1",
    "masking": {"kind": "magnitude", "scope": "global"},
    "path": {"name": "gauss", "capacities": [1.0, 0.5]},
    "head": "linear",
    "data_digest": "d1",
    "dtype": "float32",
}


def random_table(seed=0, rows=20, sub_models=3, strings=False, **changed):
    rng = np.random.default_rng(seed)
    ids = np.arange(rows)
    status = ["unreadable" if i % 7 == 1 else "ok" for i in range(rows)]
    return ScoreTable.from_arrays(
        ids=np.array([f"a/é{i}.png" for i in ids]) if strings else ids,
        labels=rng.integers(0, 5, rows),
        lc=rng.random(rows, dtype=np.float32),
        loss=rng.random(rows, dtype=np.float32),
        lc_std=rng.random(rows, dtype=np.float32),
        status=status,
        detail=["" if s == "ok" else "why" for s in status],
        metadata={**METADATA, **changed},
        path_log_probs=rng.standard_normal((rows, sub_models)) if sub_models else None,
    )
