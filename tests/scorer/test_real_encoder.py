"""all-MiniLM-L6-v2 with its trained weights on real texts, against a plain loop in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import lc_engine as lc
from helpers.tiny_encoder import plain_loop
from lc_engine.bench.language_data import labelled_texts, mini_lm
from lc_engine.models.load import ModelSpec

pytestmark = pytest.mark.slow
PATH = lc.LearningPath.explicit([1.0, 0.7])
TOPICS = ("sports", "food", "money")


def test_real_texts_score_as_a_plain_loop():
    every = labelled_texts()
    rows = [row for topic in TOPICS for row in [r for r in every if r["label"] == topic][:8]]
    table = lc.score(lc.Scorer(str(mini_lm()), path=PATH), rows, return_path=True)
    loaded = ModelSpec(str(mini_lm())).load()
    assert loaded.model.pooling == "mean"
    assert loaded.transform.window == 256
    inputs = [dict(loaded.transform.tokenizer(row["text"])) for row in rows]
    found = plain_loop(
        loaded.model.encoder, inputs, PATH, None, lambda out: out.last_hidden_state[0].mean(0)
    )
    features = torch.stack([torch.stack(one) for one in found])
    labels = torch.tensor([sorted(TOPICS).index(row["label"]) for row in rows])
    assert table.column("label").tolist() == labels.tolist()
    means = torch.stack([features[0][labels == c].mean(0) for c in range(3)])
    distances = (features[:, :, None] - means).square().sum(3).sqrt()
    want = (1 / distances).log_softmax(2)[:, torch.arange(len(rows)), labels]
    np.testing.assert_allclose(table.column("path_log_probs").T, want, rtol=1e-4, atol=1e-5)
    omega = torch.tensor(PATH.weights, dtype=torch.float64)
    np.testing.assert_allclose(table.column("lc"), omega @ want.exp(), rtol=1e-5)
    # The texts of a topic are near each other: the encoder is no seeded one.
    unit = functional.normalize(features[0] - features[0].mean(0))
    same = labels[:, None] == labels
    cosines = unit @ unit.T
    assert cosines[same].mean() > cosines[~same].mean() + 0.2
