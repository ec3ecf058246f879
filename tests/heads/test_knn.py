from __future__ import annotations

import numpy as np
import pytest
import torch

from lc_engine.heads.knn import knn_log_prob
from lc_engine.heads.memory_bank import MemoryBank, bank_rows


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


def test_the_memory_bank_is_all_rows_or_evenly_spaced(tmp_path):
    assert bank_rows(5).tolist() == [0, 1, 2, 3, 4]
    many = bank_rows(100_000)
    assert len(many) == 8192
    assert (many[0], many[-1]) == (0, 99_999)
    ids = ["b", "a", "c"]
    bank = MemoryBank(np.array(ids, dtype=object), torch.tensor([1, 0, 1]), (torch.ones(3, 2),))
    assert bank.index_of(np.array(["a", "x", "c"], dtype=object)).tolist() == [1, -1, 2]
    bank.save(tmp_path / "bank.npz")
    assert MemoryBank.load(tmp_path / "bank.npz").digest == bank.digest
