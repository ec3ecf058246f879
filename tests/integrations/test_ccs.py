"""The file of CCS and D2, with the steps of their readers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import lc_engine as lc
from lc_engine.integrations.ccs import write_ccs


def test_ccs_keeps_the_easiest_by_its_own_steps(digit_scores, tmp_path):
    write_ccs(digit_scores, tmp_path / "data-score.pickle")
    data_score = pickle.loads((tmp_path / "data-score.pickle").read_bytes())
    assert set(data_score) == {"targets", "learning_complexity", "accumulated_margin"}
    # score_monotonic_selection of core/data/Coreset.py, --data-score-descending 1
    order = data_score["learning_complexity"].argsort(descending=True)
    kept = order[: int(0.1 * data_score["targets"].shape[0])]
    want = lc.select(digit_scores, 179, "easy", score="lc", by=None)
    assert sorted(kept.tolist()) == want.tolist()
    # mislabel_mask: the lowest are dropped
    worst = data_score["accumulated_margin"].argsort(descending=False)[:50]
    hardest = lc.select(digit_scores, 50, "hard", score="lc", by=None)
    assert sorted(worst.tolist()) == hardest.tolist()
    np.testing.assert_array_equal(data_score["targets"], digit_scores.column("label"))


def test_ccs_needs_a_score_of_every_row(incomplete_scores, tmp_path):
    with pytest.raises(ValueError, match=r"1 rows have no score.*row 2: non_finite"):
        write_ccs(incomplete_scores, tmp_path / "x.pickle")
