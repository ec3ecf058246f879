from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.networks import Memory
from lc_engine.heads.knn import knn_log_prob, memory_bank_of
from lc_engine.heads.memory_bank import BANK_ROWS, MemoryBank


@pytest.mark.parametrize("seed", range(4))
def test_knn_is_its_formula(seed):
    generator = torch.Generator().manual_seed(seed)
    bank = torch.randn(30, 6, generator=generator)
    bank[7] = bank[3]  # a duplicate
    labels = torch.randint(0, 3, (30,), generator=generator)
    queries = torch.cat([bank[:5], torch.randn(4, 6, generator=generator)])
    own = torch.tensor([0, 1, 2, 3, 4, -1, -1, -1, -1])
    y = torch.randint(0, 3, (9,), generator=generator)
    found = knn_log_prob(queries, y, own, bank, labels, 5).exp()
    for i in range(9):
        distance = [
            (max(float((queries[i] - bank[j]).norm()), 1e-6), int(labels[j]))
            for j in range(30)
            if j != own[i]
        ]
        nearest = sorted(distance)[:5]
        share = sum(1 / d for d, c in nearest if c == y[i]) / sum(1 / d for d, _ in nearest)
        assert found[i].item() == pytest.approx(max(share, 1e-6), rel=1e-3, abs=2e-6)


def test_a_memory_bank_is_found_by_id_and_saved(tmp_path):
    ids = ["b", "a", "c"]
    bank = MemoryBank(np.array(ids, dtype=object), torch.tensor([1, 0, 1]), (torch.ones(3, 2),))
    assert bank.index_of(np.array(["a", "x", "c"], dtype=object)).tolist() == [1, -1, 2]
    bank.save(tmp_path / "bank.npz")
    assert MemoryBank.load(tmp_path / "bank.npz").digest == bank.digest


class Named(Memory):
    """Rows with ids of their own."""

    def __init__(self, inputs, labels, ids) -> None:
        super().__init__(inputs, labels)
        self.names = ids

    def batches(self, batch_size, start=0, stop=None):
        for batch in super().batches(batch_size, start, stop):
            yield dataclasses.replace(batch, ids=self.names[batch.ids])


@pytest.mark.parametrize("neighbours", [1, 3, 10, 59, 100])
@pytest.mark.parametrize("names", ["numbers", "text"])
def test_scores_of_duplicates_do_not_depend_on_the_order_of_the_rows(neighbours, names):
    generator = torch.Generator().manual_seed(0)
    # 8 different rows, so that nearly all distances tie, under labels that differ.
    x = torch.randint(0, 2, (60, 3), generator=generator).float()
    y = torch.randint(0, 4, (60,), generator=generator)
    ids = np.arange(60) * 7 % 60
    ids = ids if names == "numbers" else np.array([f"row {i}" for i in ids], dtype=object)
    found = []
    for seed in range(4):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        source = Named(x[order], y[order], ids[order.numpy()])
        bank = memory_bank_of(source, lambda inputs: [inputs], 1, 16, None)
        own = bank.index_of(ids)
        found.append(knn_log_prob(x, y, own, bank.features[0], bank.labels, neighbours))
        assert bank.digest == memory_bank_of(source, lambda x: [x], 1, 7, None).digest
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("names", ["numbers", "text"])
def test_given_ids_keep_the_scores_of_duplicates_whatever_the_order(names, tmp_path):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, 2, (60, 4))).float()
    y = torch.from_numpy(rng.integers(0, 3, 60))
    ids = np.arange(60) * 7 % 60
    ids = ids if names == "numbers" else np.array([f"row {i}" for i in ids])
    scorer = lc.Scorer(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), head="knn")
    found = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(60)
        out = tmp_path / f"{seed}" if seed else None
        table = lc.score(scorer, (x[order], y[order]), out, ids=ids[order], batch_size=60)
        by_id = np.argsort(table.column("id"))
        found.append(table.column("lc")[by_id])
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


def test_of_rows_at_one_distance_the_first_are_neighbours():
    bank = torch.tensor([[1.0], [-1.0], [1.0], [3.0], [-1.0]])
    log_prob = knn_log_prob(
        torch.zeros(1, 1).expand(5, 1),
        torch.arange(5),
        torch.full((5,), -1),
        bank,
        torch.arange(5),
        2,
    )
    assert log_prob.exp().tolist() == pytest.approx([0.5, 0.5, 1e-6, 1e-6, 1e-6])


@pytest.mark.parametrize("names", ["numbers", "text"])
def test_a_bank_of_many_rows_does_not_depend_on_their_order(names):
    rows = 3 * BANK_ROWS
    ids = np.arange(rows)
    if names == "text":
        ids = np.array([f"class/{i:05d}.jpg" for i in ids], dtype=object)
    inputs, labels = torch.arange(rows).float()[:, None], torch.arange(rows) % 3
    inputs[::100] = torch.nan  # such rows are left out
    seen = []

    def along_the_path(batch):
        seen.append(len(batch))
        return [batch, -batch]

    def bank(order):
        there = torch.from_numpy(order)
        source = Named(inputs[there], labels[there], ids[order])
        return memory_bank_of(source, along_the_path, 2, 1000, None)

    first = bank(np.arange(rows))
    assert sum(seen) < 1.1 * BANK_ROWS  # what cannot be in the bank costs no forward
    assert len(first.ids) == BANK_ROWS
    other = bank(np.random.default_rng(0).permutation(rows))
    assert first.ids.tolist() == other.ids.tolist() == sorted(first.ids.tolist())
    assert first.digest == other.digest
    # No part of the data is preferred: a quarter of the rows has a quarter of the bank, ± 5 σ.
    where = first.features[0][:, 0] // (rows / 4)
    for quarter in range(4):
        assert abs(int((where == quarter).sum()) - BANK_ROWS / 4) < 5 * (BANK_ROWS * 3 / 16) ** 0.5
