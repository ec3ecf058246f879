from __future__ import annotations

import numpy as np
import pytest

import lc_engine as lc


def table(count=21, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "id": np.arange(count),
        "loss": generator.random(count),
        "perplexity": np.exp(generator.normal(size=count)),
        "entropy": generator.random(count),
        "status": np.array(["ok"] * count, dtype=object),
    }


def quadrant(error, uncertainty, high_error, high_uncertainty):
    if error > high_error:
        return 1 if uncertainty > high_uncertainty else 2
    return 4 if uncertainty > high_uncertainty else 3


@pytest.mark.parametrize(("error", "uncertainty"), [(0.5, 0.5), (0.25, 0.9), (0.0, 1.0)])
def test_quadrants_agree_with_a_row_at_a_time(error, uncertainty):
    scores = table()
    scores["status"][[3, 8]] = "too_long"
    scores["perplexity"][[3, 8]] = np.nan
    scored = [i for i in range(21) if i not in (3, 8)]
    cuts = (
        np.quantile(scores["perplexity"][scored], error),
        np.quantile(scores["entropy"][scored], uncertainty),
    )
    expected = [
        quadrant(scores["perplexity"][i], scores["entropy"][i], *cuts) if i in scored else 0
        for i in range(21)
    ]
    found = lc.quadrants(scores, error, uncertainty)
    assert found.dtype == np.int8
    assert found.tolist() == expected


def test_selection_takes_the_quadrants_as_groups():
    scores = table(200)
    scores["quadrant"] = lc.quadrants(scores)
    kept = lc.select(
        scores, 20, "hard", by="quadrant", cap={1: 0, 2: 10, 3: 0, 4: 10}
    )  # Q-Tuning keeps 2 and 4
    assert set(scores["quadrant"][kept]) == {2, 4}


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match='no column "entropy"'):
        lc.quadrants({"id": np.arange(2), "perplexity": np.ones(2)})
    with pytest.raises(ValueError, match=r"error_quantile must be in \[0, 1\], got 2"):
        lc.quadrants(table(), 2)
    scores = table()
    scores["entropy"][4] = np.nan
    with pytest.raises(ValueError, match='"entropy" is NaN at id 4'):
        lc.quadrants(scores)
    assert lc.quadrants({name: column[:0] for name, column in table().items()}).shape == (0,)
