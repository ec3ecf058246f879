"""What only the C++ forms of masked_linear and token_nll can get wrong: tiles, segments, arrays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lc_engine.ops import contract, masked_linear, token_nll

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]


def layer(
    draw: Draw, dtype: torch.dtype, rows: int, dims: int = 77
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Enough outputs for two tasks; even dims of bfloat16 may be multiplied in pairs."""
    x, w, b = draw(2, rows, dims), draw(1100, dims) / 9, draw(1100)
    return x.to(dtype), w.to(dtype), b.to(dtype), torch.tensor([0.02, 0.15])


def nll(hidden: Tensor, weight: Tensor, targets: Tensor, thresholds: Tensor) -> Tensor:
    scores = token_nll(
        hidden, weight, targets, thresholds=thresholds, return_entropy=True, backend="native"
    )
    return torch.stack(scores)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dims", [77, 130])
@pytest.mark.parametrize("rows", [1, 15, 17, 33, 50, 255, 300])
def test_a_row_has_the_same_bits_in_every_batch(
    draw: Draw, dtype: torch.dtype, dims: int, rows: int, set_threads: Callable[[int], None]
) -> None:
    x, w, b, t = layer(draw, dtype, 300, dims)
    set_threads(2)
    whole = masked_linear(x, w, b, t, activation="gelu", backend="native")
    targets = torch.arange(300) * 7 % 1100
    scores = nll(x, w, targets, t)
    set_threads(1)
    last = slice(300 - rows, 300)
    some = masked_linear(x[:, last], w, b, t, activation="gelu", backend="native")
    assert torch.equal(some, whole[:, last])
    assert torch.equal(nll(x[:, last], w, targets[last], t), scores[:, :, last])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sub_model_has_the_same_bits_alone(draw: Draw, dtype: torch.dtype) -> None:
    x, w, b, t = layer(draw, dtype, 40)
    alone = masked_linear(x[1:], w, b, t[1:], backend="native")
    assert torch.equal(masked_linear(x, w, b, t, backend="native")[1:], alone)
    shared = x[:1].expand(2, 40, 77)
    copied = masked_linear(shared.clone(), w, b, t, backend="native")
    assert torch.equal(masked_linear(shared, w, b, t, backend="native"), copied)


@pytest.mark.parametrize("dims", [2, 64, 130, 300])
@pytest.mark.parametrize("rows", [1, 70])
def test_bfloat16_of_even_dims_accumulates_in_float32(draw: Draw, dims: int, rows: int) -> None:
    x, w, b, t = layer(draw, torch.bfloat16, rows, dims)
    kept = [torch.where(w.abs().float() >= one, w, 0).double() for one in t]
    logits = torch.stack([h.double() @ k.T + b.double() for h, k in zip(x, kept, strict=True)])
    targets = torch.arange(rows) % 1100
    ours = token_nll(x, w, targets, bias=b, thresholds=t, backend="native")
    wanted = -logits.log_softmax(-1)[:, torch.arange(rows), targets]
    torch.testing.assert_close(ours.double(), wanted, atol=2e-5, rtol=2e-5)
    layers = masked_linear(x, w, b, t, activation="relu", backend="native")
    torch.testing.assert_close(layers.double(), logits.relu(), atol=1e-4, rtol=4e-3)


def test_random_saliency_of_more_numbers_than_a_draw(draw: Draw) -> None:
    x, w, b, t = layer(draw, torch.float32, 9)
    for seed in (7, -3, 2**63 - 5):
        ours, plain = (
            masked_linear(x, w, b, t, saliency=("random", seed), backend=backend)
            for backend in ("native", "reference")
        )
        torch.testing.assert_close(ours, plain, atol=2e-5, rtol=2e-5)


def test_weights_that_require_grad_and_calls_from_several_threads(draw: Draw) -> None:
    x, w, _, t = layer(draw, torch.float32, 70)
    w.requires_grad_()
    targets = torch.arange(70)
    with ThreadPoolExecutor(4) as pool:
        both = list(pool.map(lambda _: nll(x, w, targets, t), range(8)))
    assert all(torch.equal(one, both[0]) for one in both)


X, W = np.ones((2, 3, 4), np.float32), np.ones((5, 4), np.float32)
BOUNDS, OUT = np.zeros(2, np.float32), np.zeros((2, 3, 5), np.float32)
NLL, TARGETS = np.zeros((2, 3), np.float32), np.zeros(3, np.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X.astype(np.float64)}, "x must be float32, or bfloat16 bits as uint16"),
        ({"x": X[:, ::2]}, "x must be contiguous"),
        ({"x": X[:1]}, "x must be"),
        ({"x": X[..., :3].copy()}, "x must be"),
        ({"x": X[0, 0]}, "x must have 2 or 3 dimensions"),
        ({"x": X.astype(np.uint16)}, "x must have the dtype of the weight"),
        ({"weight": W[0]}, "weight must be"),
        ({"weight": W.astype(np.int32)}, "weight must be float32"),
        ({"bias": W[0]}, "bias must be"),
        ({"thresholds": W}, "thresholds must be"),
        ({"saliency": X[0]}, "saliency must be like the weight"),
        ({"activation": "tanh"}, "activation must be"),
        ({"out": OUT[:1]}, "out must be a writable"),
        ({"out": OUT.astype(np.uint16)}, "out must be a writable"),
    ],
)
def test_masked_linear_checks_arrays_again(change: dict[str, Any], message: str) -> None:
    names = ("bias", "saliency", "seed", "activation")
    arguments = dict.fromkeys(names) | {"x": X, "weight": W, "thresholds": BOUNDS, "out": OUT}
    with pytest.raises(ValueError, match=message):
        contract.native().masked_linear(**arguments | {"threads": 1} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": X[:, :2].copy()}, "hidden must have a row for each token"),
        ({"hidden": X[..., :3].copy()}, "hidden must be"),
        ({"vocab_weight": W[:0]}, "vocab_weight must be"),
        ({"bias": W[0]}, "bias must be"),
        ({"thresholds": W[0]}, "thresholds must be"),
        ({"saliency": X[0]}, "saliency must be like the weight"),
        ({"targets": TARGETS[:2]}, "targets must be"),
        ({"targets": TARGETS - 1}, r"targets must lie in \[0, vocabulary\)"),
        ({"targets": TARGETS + 5}, r"targets must lie in \[0, vocabulary\)"),
        ({"nll": NLL[0]}, "nll must be a writable"),
        ({"entropy": NLL[:1]}, "entropy must be a writable"),
    ],
)
def test_token_nll_checks_arrays_again(change: dict[str, Any], message: str) -> None:
    names = ("bias", "saliency", "seed", "entropy", "thresholds")
    arguments = dict.fromkeys(names) | {"hidden": X, "vocab_weight": W, "nll": NLL}
    with pytest.raises(ValueError, match=message):
        contract.native().token_nll(**arguments | {"targets": TARGETS, "threads": 1} | change)
