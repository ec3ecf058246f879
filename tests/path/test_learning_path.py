from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune

import lc_engine as lc
from lc_engine.path.learning_path import LearningPath


def test_geometric_is_the_published_path():
    path = LearningPath.geometric()
    assert len(path) == 50
    assert path.capacities[0] == 1.0
    assert path.capacities[-1] == pytest.approx(0.98**49)
    assert set(path.weights) == {1 / 50}


# Sizes whose step falls on a half (25, 75, 125), small ones, and odd ones.
@pytest.mark.parametrize("sizes", [(25, 50), (7, 3), (101, 1), (640, 389), (1,)])
@pytest.mark.parametrize("step", [0.02, 0.1, 0.5])
def test_geometric_keeps_what_repeated_pruning_keeps(sizes, step):
    generator = torch.Generator().manual_seed(sum(sizes))
    layers = [torch.nn.Linear(size, 1, bias=False) for size in sizes]
    for layer in layers:
        layer.weight.data.normal_(generator=generator)
    path = LearningPath.geometric(12, step)
    kept = [sum(sizes)]
    for _ in range(11):
        prune.global_unstructured(
            [(layer, "weight") for layer in layers], prune.L1Unstructured, amount=step
        )
        kept.append(sum(int(layer.weight_mask.sum()) for layer in layers))
    assert path.keep_counts(sum(sizes)) == kept


def test_linear_is_evenly_spaced_with_both_ends():
    path = LearningPath.linear(5, 0.2, 1.0)
    assert path.capacities == pytest.approx((1.0, 0.8, 0.6, 0.4, 0.2))
    assert LearningPath.linear(1).capacities == (1.0,)


@pytest.mark.parametrize("points", [1, 2, 3, 8])
def test_gauss_is_exact_for_polynomials(points):
    lo, hi = 0.1, 0.9
    path = LearningPath.gauss(points, lo, hi)
    for degree in range(2 * points):
        mean = math.fsum(w * r**degree for r, w in zip(path.capacities, path.weights, strict=True))
        exact = (hi ** (degree + 1) - lo ** (degree + 1)) / (degree + 1) / (hi - lo)
        assert mean == pytest.approx(exact, abs=1e-14)
    assert all(lo < r < hi for r in path.capacities)


def test_explicit_sorts_capacities_with_their_weights():
    path = LearningPath.explicit([0.2, 1.0, 0.5], weights=[2, 1, 1])
    assert path.capacities == (1.0, 0.5, 0.2)
    assert path.weights == (0.25, 0.25, 0.5)
    assert LearningPath.explicit([0.3, 0.6]).weights == (0.5, 0.5)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20),
    st.integers(0, 10_000_000),
)
def test_counts_descend_and_follow_the_capacity(capacities, numel):
    path = LearningPath.explicit(capacities)
    counts = path.keep_counts(numel)
    assert counts == sorted(counts, reverse=True)
    assert all(
        abs(n - r * numel) <= 0.5 + 1e-6 for n, r in zip(counts, path.capacities, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("gauss:8", LearningPath.gauss(8)),
        ("gauss", LearningPath.gauss()),
        ("gauss:3:0.5:0.9", LearningPath.gauss(3, 0.5, 0.9)),
        ("geometric:50:0.02", LearningPath.geometric(50, 0.02)),
        ("geometric:5", LearningPath.geometric(5)),
        ("linear:50:0.02:1.0", LearningPath.linear(50, 0.02, 1.0)),
        ("explicit:1,.5,.2", LearningPath.explicit([1, 0.5, 0.2])),
    ],
)
def test_parse(text, path):
    assert LearningPath.parse(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cubic:3",
        "gauss:x",
        "gauss:0",
        "gauss:8:0:1",
        "geometric:3:0.1:4",
        "linear:2:.9:.1",
        "explicit:",
        "explicit:1,2",
        "explicit:nan",
        "geometric:2.5",
        "geometric:3:1.5",
    ],
)
def test_parse_says_what_it_takes(text):
    with pytest.raises(ValueError, match=r"geometric\[:K\[:step\]\]"):
        LearningPath.parse(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("x", (), ()), "capacities must hold at least one"),
        (("x", (0.5, 0.6), (0.5, 0.5)), "descending"),
        (("x", (1.5,), (1.0,)), r"capacities\[0\] must lie in"),
        (("x", (0.0,), (1.0,)), r"capacities\[0\] must lie in"),
        (("x", (0.5,), (0.9,)), "sum to 1"),
        (("x", (0.5, 0.4), (1.5, -0.5)), r"weights\[1\]"),
        (("x", (0.5, 0.4), (1.0,)), "one number per capacity"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        LearningPath(*fields)


@pytest.mark.parametrize("weights", [[0, 0], [1], [math.inf, 1], [math.nan, 1]])
def test_explicit_weights_are_checked(weights):
    with pytest.raises(ValueError, match="weights"):
        LearningPath.explicit([1.0, 0.5], weights)


@pytest.mark.parametrize("text", ["gauss:8", "geometric:50:0.02", "linear:7", "explicit:.3,.2"])
def test_round_trip_through_json_and_pickle(text):
    path = LearningPath.parse(text)
    again = LearningPath.from_dict(json.loads(json.dumps(path.to_dict())))
    assert again == path
    assert again.digest == path.digest
    assert pickle.loads(pickle.dumps(path)) == path


def test_from_dict_names_what_is_missing():
    with pytest.raises(ValueError, match="lacks capacities, weights"):
        LearningPath.from_dict({"name": "gauss"})


def test_digest_tells_paths_apart():
    digests = {
        LearningPath.parse(text).digest
        for text in ("gauss:8", "gauss:9", "linear:8", "geometric:8", "geometric:8:0.03")
    }
    assert len(digests) == 5


def test_weights_sum_to_one_for_many_points():
    for points in (1, 3, 50, 1000):
        assert np.sum(lc.LearningPath.geometric(points, 0.001).weights) == pytest.approx(1)
