"""The error–uncertainty plane: every row by its perplexity and its entropy.

Q-Tuning (arXiv 2509.23873) cuts a set into four by two thresholds, on the error (perplexity of the
response) and the uncertainty (mean entropy of its predictions) of the whole model:

    1 harmful noise             error high, uncertainty high
    2 valuable misconceptions   error high, uncertainty low
    3 redundant knowledge       error low,  uncertainty low
    4 calibration data          error low,  uncertainty high

It keeps quadrants 2 and 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.data.batch import OK
from lc_engine.selection.columns import as_scores, check_no_nan, optional_column, require_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.columns import ScoresLike


def quadrants(
    scores: ScoresLike, error_quantile: float = 0.5, uncertainty_quantile: float = 0.5
) -> NDArray[np.int8]:
    """Return each row's quadrant (N,) of the error–uncertainty plane: 1 to 4, 0 without a score.

    A value is high if it exceeds the quantile of the rows of status "ok". Q-Tuning searches for the
    quantiles at which its share of the rows is left; by default they are medians.

    Args:
        scores: as in `select`, with "perplexity" and "entropy".
        error_quantile: of the perplexities, in [0, 1].
        uncertainty_quantile: of the entropies, in [0, 1].

    Raises:
        ValueError: naming the invalid argument, column or row.
    """
    for name, quantile in (
        ("error_quantile", error_quantile),
        ("uncertainty_quantile", uncertainty_quantile),
    ):
        if not 0 <= quantile <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {quantile}")
    scores = as_scores(scores)
    error, uncertainty = (
        np.asarray(require_column(scores, name), dtype=np.float64)
        for name in ("perplexity", "entropy")
    )
    status = optional_column(scores, "status")
    scored = np.ones(len(error), bool) if status is None else np.asarray(status) == OK
    found = np.zeros(len(error), dtype=np.int8)
    if scored.any():
        ids = np.asarray(require_column(scores, "id"))
        for name, values in (("perplexity", error), ("entropy", uncertainty)):
            check_no_nan(name, values[scored], ids[scored])
        wrong = error > np.quantile(error[scored], error_quantile)
        unsure = uncertainty > np.quantile(uncertainty[scored], uncertainty_quantile)
        found[scored] = np.where(wrong, np.where(unsure, 1, 2), np.where(unsure, 4, 3))[scored]
    return found
