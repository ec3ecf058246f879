"""The file of LESS, with the steps of its reader."""

from __future__ import annotations

import pytest
import torch

import lc_engine as lc
from lc_engine.integrations.less import write_less


@pytest.mark.parametrize(("score", "strategy"), [("loss", "hard"), ("lc", "easy")])
def test_less_takes_the_highest(digit_scores, tmp_path, score, strategy):
    path = write_less(digit_scores, tmp_path / "out" / "mmlu", "dolly", score)
    assert path == tmp_path / "out" / "mmlu" / "dolly_influence_score.pt"
    scores = torch.load(path, weights_only=True)
    top = torch.topk(scores.float(), 90, dim=0, largest=True).indices
    want = lc.select(digit_scores, 90, strategy, score=score, by=None)
    assert sorted(top.tolist()) == want.tolist()


def test_less_never_takes_a_row_without_a_score(incomplete_scores, tmp_path):
    scores = torch.load(write_less(incomplete_scores, tmp_path, "x"), weights_only=True)
    assert scores[2] == -torch.inf
    assert scores.isfinite().sum() == 3
