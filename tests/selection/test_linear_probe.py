from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from lc_engine.selection import linear_probe
from lc_engine.selection.linear_probe import (
    leave_one_out_margins,
    principal_components,
    ridge_predict,
    standardize,
    train_softmax_probe,
)


@pytest.mark.parametrize(("samples", "width"), [(9, 30), (60, 5), (1, 4)])
def test_ridge_is_least_squares_with_a_penalty(samples: int, width: int) -> None:
    rng = np.random.default_rng(samples)
    x, queries = rng.standard_normal((samples, width)), rng.standard_normal((20, width))
    y = rng.integers(0, 3, samples)
    centered = x - x.mean(0)
    scale = max(np.sqrt((centered**2).sum(1).mean()), 1e-12)
    onehot = np.eye(3)[y]
    stacked = np.vstack([centered / scale, np.sqrt(0.3) * np.eye(width)])
    targets = np.vstack([onehot - onehot.mean(0), np.zeros((width, 3))])
    weight = np.linalg.lstsq(stacked, targets, rcond=None)[0]
    expected = ((queries - x.mean(0)) / scale @ weight + onehot.mean(0)).argmax(1)
    found = ridge_predict(x.astype(np.float32), y, 3, queries.astype(np.float32))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("samples", "width"), [(12, 40), (50, 5), (2, 3)])
def test_margins_are_those_of_classifiers_without_the_row(
    samples: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_probe, "_CHUNK", 7)
    rng = np.random.default_rng(samples)
    x = rng.standard_normal((samples, width)) + 5
    y = np.concatenate([[0, 1], rng.integers(0, 3, samples - 2)])
    penalty = 0.3 * np.square(x - x.mean(0)).sum() / samples
    expected = []
    for row in range(samples):
        others = np.arange(samples) != row
        inputs, targets = x[others], np.eye(3)[y[others]]
        centered = inputs - inputs.mean(0)
        gram = centered.T @ centered + penalty * np.eye(width)
        weight = np.linalg.solve(gram, centered.T @ targets)
        output = (x[row] - inputs.mean(0)) @ weight + targets.mean(0)
        expected.append(output[y[row]] - np.delete(output, y[row]).max())
    found = leave_one_out_margins(x.astype(np.float32), y, 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)  # float32 products


@pytest.mark.parametrize("rank", [3, 200])
def test_reduction_keeps_distances(rank: int) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((50, rank)) @ rng.standard_normal((rank, 300))).astype(np.float32)
    small = principal_components(x, 128, rng)
    assert small.shape[1] <= 128

    def distances(rows: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rows[:, None] - rows[None], axis=2)

    np.testing.assert_allclose(distances(small), distances(x), rtol=1e-3, atol=1e-2)


def test_the_probe_learns_linear_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    features = (1000 * (np.eye(4)[labels] + 0.1 * rng.standard_normal((300, 4)))).astype(np.float32)
    *_, p = train_softmax_probe(standardize(features), labels, 4, 20, rng)
    assert (p.argmax(1) == labels).mean() > 0.98, "whatever the scale of the features"
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)


def test_margins_of_many_classes_fit_in_memory() -> None:
    rng = np.random.default_rng(0)
    classes = 3000
    labels = np.resize(np.arange(classes), 2 * classes)
    features = rng.standard_normal((2 * classes, 3)).astype(np.float32)
    tracemalloc.start()
    leave_one_out_margins(features, labels, classes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6, "rows x classes are 144 MB, classes x classes 36 MB"


@pytest.mark.parametrize("offset", [0, 3000])
def test_rows_far_from_zero_are_classified_alike(offset: int) -> None:
    rng = np.random.default_rng(0)
    moved = (rng.standard_normal((500, 6)) + offset).astype(np.float32)
    exact = (moved.astype(np.float64) - offset).astype(np.float32)
    labels = (exact[:, 0] > 0).astype(int)
    found, want = (ridge_predict(x[:300], labels[:300], 2, x[300:]) for x in (moved, exact))
    np.testing.assert_array_equal(found, want)
    moved, exact = np.tile(moved, (200, 1)), np.tile(exact, (200, 1))
    labels = np.tile(labels, 200)
    found, want = (leave_one_out_margins(x, labels, 2) for x in (moved, exact))
    np.testing.assert_allclose(found, want, atol=1e-3)
