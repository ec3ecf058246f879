"""Greedy strategies on large groups: blocks of candidates, exact counts, little quality lost."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from lc_engine.selection import select
from lc_engine.selection.strategies import candidate_blocks as blocks
from lc_engine.selection.strategies.candidate_blocks import candidate_blocks


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [
        (1_000, 1_000, 1),  # 10⁶ pairs: all candidates at once
        (10_000, 1_000, 9),  # at least 1,024 rows a block
        (1_000_000, 100_000, 976),
        (1_000_000, 640, 20),  # at least 32 kept of a block
        (1_000_000, 31, 1),
    ],
)
def test_blocks_share_rows_and_budget_evenly(rows: int, count: int, expected: int) -> None:
    found = candidate_blocks(rows, count)
    assert len(found) == expected
    assert [block.start for block in found] == [0, *(block.stop for block in found[:-1])]
    assert found[-1].stop == rows
    assert sum(block.budget for block in found) == count
    sizes = [block.stop - block.start for block in found]
    counts = [block.budget for block in found]
    assert max(sizes) - min(sizes) <= 1
    assert max(counts) - min(counts) <= 1


def one_group(features: np.ndarray) -> dict[str, np.ndarray]:
    return {"id": np.arange(len(features)), "loss": features[:, 0]}


def test_herding_in_blocks_follows_the_mean_of_the_whole_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "MIN_ROWS", 128)
    features = np.random.default_rng(0).standard_normal((2_000, 8)).astype(np.float32)
    features[:, 0] += np.arange(2_000) / 500  # a drift along the file, which blocks must not follow
    scores = one_group(features)

    def gap(kept: np.ndarray) -> float:
        return float(np.linalg.norm(features[kept].mean(0) - features.mean(0)))

    monkeypatch.setattr(blocks, "EXACT_PAIRS", 10**9)
    exact = gap(select(scores, 600, "herding", by=None, features=features))
    monkeypatch.setattr(blocks, "EXACT_PAIRS", 1)
    assert len(candidate_blocks(2_000, 600)) == 15
    kept = select(scores, 600, "herding", by=None, features=features)
    drawn = gap(select(scores, 600, "random", by=None))
    assert len(np.unique(kept)) == 600
    assert gap(kept) < 3 * exact + 1e-3 < drawn / 5


def test_kcenter_in_blocks_covers_better_than_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MIN_ROWS", 128)
    monkeypatch.setattr(blocks, "EXACT_PAIRS", 1)
    features = np.random.default_rng(1).standard_normal((1_500, 3)).astype(np.float32)
    scores = one_group(features)

    def radius(kept: np.ndarray) -> float:
        gaps = np.linalg.norm(features[:, None] - features[kept][None], axis=2)
        return float(gaps.min(1).max())

    kept = select(scores, 330, "kcenter", by=None, features=features)
    assert len(np.unique(kept)) == 330
    assert radius(kept) < radius(select(scores, 330, "random", by=None)) / 2


@pytest.mark.parametrize("strategy", ["herding", "kcenter"])
def test_blocks_do_not_depend_on_the_order_of_rows_and_are_logged(
    strategy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(blocks, "MIN_ROWS", 64)
    monkeypatch.setattr(blocks, "EXACT_PAIRS", 1)
    rng = np.random.default_rng(2)
    features = rng.standard_normal((500, 4)).astype(np.float32)
    scores = one_group(features)
    with caplog.at_level(logging.INFO, "lc_engine.selection"):
        kept = select(scores, 200, strategy, by=None, features=features)
    assert "6 times less work" in caplog.text
    order = rng.permutation(500)
    mixed = {name: column[order] for name, column in scores.items()}
    again = select(mixed, 200, strategy, by=None, features=features[order])
    np.testing.assert_array_equal(kept, again)
