from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

from helpers.selection_tables import labels_of, random_columns
from lc_engine.selection import select
from lc_engine.selection.sampler import FlexRandSampler, flexrand_weights


def indexed_columns(seed: int = 0, samples: int = 200) -> dict[str, np.ndarray]:
    return random_columns(seed, samples) | {"id": np.arange(samples)}


@pytest.mark.parametrize("seed", range(3))
def test_each_epoch_draws_the_whole_budget_anew(seed: int) -> None:
    scores = indexed_columns(seed)
    sampler = FlexRandSampler(scores, 0.2, gamma=0.3, seed=seed)
    assert len(sampler) == 40
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(drawn) == len(set(drawn)) == 40
        assert drawn != sorted(drawn), "in random order"
        assert sorted(drawn) == sampler.subset().tolist()
        assert drawn == list(sampler), "the same epoch is the same draw"
        epochs.append(frozenset(drawn))
    assert len(set(epochs)) == 4
    sampler.set_epoch(1)
    assert frozenset(sampler) == epochs[1], "epochs can be repeated"


def test_the_epochs_reach_both_pools_evenly() -> None:
    scores = indexed_columns(1, 100)
    scores["label"] = np.zeros(100, int)
    sampler = FlexRandSampler(scores, 20, gamma=0.25)
    seen = np.zeros(100)
    for epoch in range(400):
        sampler.set_epoch(epoch)
        seen[sampler.subset()] += 1 / 400
    weights = flexrand_weights(scores, 20, gamma=0.25)
    assert weights.sum() == pytest.approx(20)
    assert np.abs(seen - weights).max() < 5 * np.sqrt(0.25 / 400)


def test_weights_are_those_of_the_sampler_with_the_same_bounds() -> None:
    scores = indexed_columns(2, 120)
    bounds = {"floor": {0: 12}, "cap": {1: 3}, "noise_guard": 0.2}
    sampler = FlexRandSampler(scores, 30, gamma=0.25, **bounds)
    weights = flexrand_weights(scores, 30, gamma=0.25, **bounds)
    assert weights.sum() == pytest.approx(30)
    seen = np.zeros(120)
    for epoch in range(400):
        sampler.set_epoch(epoch)
        seen[sampler.subset()] += 1 / 400
    assert np.abs(seen - weights).max() < 5 * np.sqrt(0.25 / 400)
    assert not seen[weights == 0].any(), "dropped rows are never drawn"
    assert (weights == 0).sum() >= 0.1 * 120


def test_loaders_take_the_sampler_the_subset_and_the_weights() -> None:
    scores = indexed_columns()
    data = TensorDataset(torch.arange(200))
    sampler = FlexRandSampler(scores, 50, gamma=0.1, noise_guard=0.1, floor=5)
    seen = torch.cat([batch for (batch,) in DataLoader(data, batch_size=16, sampler=sampler)])
    assert sorted(seen.tolist()) == sampler.subset().tolist()
    kept = np.bincount(labels_of(scores, sampler.subset()))
    assert (kept >= np.minimum(5, np.bincount(scores["label"]))).all()
    subset = Subset(data, select(scores, 50, gamma=0.1).tolist())
    assert len(subset) == 50
    weights = flexrand_weights(scores, 50, gamma=0.1)
    weighted = WeightedRandomSampler(weights.tolist(), round(weights.sum()))
    assert len(list(weighted)) == 50


def test_rows_without_a_score_have_no_weight() -> None:
    scores = indexed_columns()
    scores["status"] = np.where(np.arange(200) < 20, "unreadable", "ok")
    weights = flexrand_weights(scores, 30, gamma=0.7)
    assert not weights[:20].any()
    assert weights.sum() == pytest.approx(30)
    assert min(FlexRandSampler(scores, 30, gamma=0.7)) >= 20


def test_ids_must_be_row_indices() -> None:
    scores = indexed_columns() | {"id": np.array([f"{i}.png" for i in range(200)])}
    with pytest.raises(ValueError, match="row indices of the data set"):
        FlexRandSampler(scores, 0.2, gamma=0.3)
    with pytest.raises(ValueError, match="gamma"):
        FlexRandSampler(indexed_columns(), 0.2, gamma=2.0)
