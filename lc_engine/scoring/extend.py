"""Extend a finished run to a longer path: only sub-models that it lacks are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.differences import differences
from lc_engine.data.batch import OK
from lc_engine.data.table import ScoreTable
from lc_engine.path.learning_path import LearningPath
from lc_engine.path.reduction import reduce_path
from lc_engine.scoring.score import score

if TYPE_CHECKING:
    from pathlib import Path

    from lc_engine.scorer.scorer import Scorer

# Metadata that must agree for the confidences of two runs to form one path.
_SHARED = ("model_digest", "masking", "dtype", "data_digest")


def extend(
    earlier: ScoreTable, scorer: Scorer, data: Any, out: str | Path | None = None, **options: Any
) -> ScoreTable:
    """Score along a longer path, reusing the confidences that an earlier run has.

    A Clenshaw-Curtis path of K points holds the (K + 1) / 2 of the next coarser one, so K = 9 after
    K = 5 costs 4.

    Args:
        earlier: scored with return_path=True, by the same scorer along another path.
        scorer: along the path that is wanted.
        data: the same data; see `score`.
        out: a folder for the scores at the new points, where a run that was killed continues.
        options: of `score`, but for return_path.

    Returns:
        The table along the scorer's path, with the column `path_log_probs`.

    Raises:
        ValueError: the table has no `path_log_probs`, or is of another model, masking, dtype or
            data; early exits or a geometric path, whose sub-models depend on the one before.
    """
    path = scorer.path
    if scorer.masking.brings_path or path.step is not None:
        raise ValueError(
            "path: exits and a geometric path cannot be extended: use LearningPath.clenshaw_curtis"
        )
    if "path_log_probs" not in earlier.column_names:
        raise ValueError(
            "earlier: the score table has no path_log_probs: score with return_path=True"
        )
    old = LearningPath.from_dict(earlier.metadata["path"])
    new = [r for r in path.capacities if r not in old.capacities]
    # With no point to add, one is scored again, to check that model and data are the same.
    added = score(
        scorer.with_path(LearningPath.explicit(new or path.capacities[:1])),
        data,
        out,
        return_path=True,
        **options,
    )
    _check_same(earlier, added)
    held = dict(zip(old.capacities, earlier.column("path_log_probs").T, strict=True))
    held |= dict(zip(new, added.column("path_log_probs").T, strict=False))
    log_probs = np.stack([held[r] for r in path.capacities], axis=1)
    lc, loss, lc_std = reduce_path(log_probs.T.astype(np.float64), path.weights)
    was, now = earlier.column("status"), added.column("status")
    lost = was != OK
    return ScoreTable.from_arrays(
        ids=added.column("id"),
        labels=added.column("label"),
        lc=lc,
        loss=loss,
        lc_std=lc_std,
        status=np.where(lost, was, now).tolist(),
        detail=np.where(lost, earlier.column("detail"), added.column("detail")).tolist(),
        metadata=added.metadata | {"path": path.to_dict()},
        path_log_probs=log_probs,
    )


def _check_same(earlier: ScoreTable, added: ScoreTable) -> None:
    was, now = ({name: table.metadata.get(name) for name in _SHARED} for table in (earlier, added))
    for fields, table in ((was, earlier), (now, added)):
        # Learnt in each run; on the same data they differ by rounding at most.
        head = dict(table.metadata["head"])
        fields["head"] = {key: head[key] for key in head if key not in ("prototypes", "bank")}
    difference = differences(was, now)
    if not difference and not np.array_equal(earlier.column("id"), added.column("id")):
        difference = "its rows have other ids"
    if difference:
        raise ValueError(f"earlier: the table is of another run ({difference})")
