"""Seconds to select 10 % of a million scored rows, by strategy.

pytest benchmarks/bench_select.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lc_engine.selection import choose_gamma, select

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

ROWS, CLASSES, WIDTH = 1_000_000, 1_000, 64


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "id": rng.permutation(ROWS),
        "label": rng.integers(0, CLASSES, ROWS),
        "lc": rng.random(ROWS, dtype=np.float32),
        "loss": rng.standard_exponential(ROWS, dtype=np.float32),
        "lc_std": rng.random(ROWS, dtype=np.float32) / 4,
    }


@pytest.mark.parametrize(
    ("strategy", "arguments"),
    [
        ("random", {}),
        ("easy", {}),
        ("hard", {}),
        ("flexrand", {"gamma": 0.2}),
        ("flexrand", {"gamma": 0.2, "noise_guard": 0.1}),
        ("stratified", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_score_columns(
    benchmark: BenchmarkFixture, scores: dict[str, Any], strategy: str, arguments: dict[str, Any]
) -> None:
    kept = benchmark.pedantic(select, (scores, 0.1, strategy), arguments, rounds=3, warmup_rounds=1)
    assert len(kept) == ROWS // 10


@pytest.mark.parametrize("strategy", ["moderate", "el2n", "entropy", "easy_diverse"])
def test_features(benchmark: BenchmarkFixture, scores: dict[str, Any], strategy: str) -> None:
    """10 % of the rows and classes: these read every feature, k-means repeatedly."""
    part = {name: column[: ROWS // 10] for name, column in scores.items()}
    part["label"] = part["label"] // 10
    features = np.random.default_rng(0).standard_normal((ROWS // 10, WIDTH), dtype=np.float32)
    kept = benchmark.pedantic(select, (part, 0.1, strategy), {"features": features}, rounds=1)
    assert len(kept) == ROWS // 100


@pytest.mark.parametrize("keep", [5_000, 0.1], ids=["5 a class", "100 a class"])
def test_gamma_auto(benchmark: BenchmarkFixture, scores: dict[str, Any], keep: float) -> None:
    features = np.random.default_rng(0).standard_normal((ROWS, WIDTH), dtype=np.float32)
    choice = benchmark.pedantic(choose_gamma, (scores, keep), {"features": features}, rounds=1)
    assert 0.0 <= choice.gamma <= 1.0
