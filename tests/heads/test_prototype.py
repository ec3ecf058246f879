from __future__ import annotations

import pytest
import torch

from lc_engine.heads.prototype import Prototypes, PrototypeSums


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_means_of_a_stream_in_batches(seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(101, 7, generator=generator)
    labels = torch.tensor([3, 900_000_001, 0, 17])[torch.randint(0, 4, (101,), generator=generator)]
    sums = PrototypeSums()
    for start in range(0, 101, 13):
        sums.add(features[start : start + 13], labels[start : start + 13])
    found = sums.means()
    assert found.labels.tolist() == sorted(set(labels.tolist()))
    for label, mean, count in zip(found.labels, found.means, found.counts, strict=True):
        rows = features[labels == label].double()
        assert count == len(rows)
        assert torch.equal(mean, rows.mean(0).float())


def test_rows_that_are_not_finite_are_left_out():
    sums = PrototypeSums()
    sums.add(torch.tensor([[1.0], [float("nan")], [float("inf")]]), torch.tensor([5, 5, 6]))
    found = sums.means()
    assert (found.labels.tolist(), found.means.tolist(), found.counts.tolist()) == (
        [5],
        [[1.0]],
        [1],
    )


def test_no_row_at_all_is_said():
    with pytest.raises(ValueError, match="at least one row"):
        PrototypeSums().means()


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2],
)
def test_precision_and_file(tmp_path, dtype, kept):
    sums = PrototypeSums()
    sums.add(torch.tensor([[1.0, 2.0], [1.5, 4.0]], dtype=dtype), torch.tensor([1, 1]))
    found = sums.means()
    assert found.means.dtype == kept
    assert found.means.tolist() == [[1.25, 3.0]]
    found.save(tmp_path / "p.npz")
    again = Prototypes.load(tmp_path / "p.npz")
    assert again.digest == found.digest
    assert torch.equal(again.means, found.means)
