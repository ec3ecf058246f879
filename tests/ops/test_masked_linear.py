from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from lc_engine.ops import masked_linear, philox

if TYPE_CHECKING:
    from lc_engine.ops.contract import Backend

Draw = Callable[..., Tensor]

# (sub-models, rows, inputs, outputs)
SHAPES = [
    (1, 1, 1, 1),
    (3, 17, 7, 5),
    (4, 130, 65, 33),
    (2, 3, 300, 100),
    (2, 300, 1, 9),
    (1, 2, 5, 1050),
]
ACTIVATIONS = {
    None: lambda y: y,
    "relu": lambda y: np.maximum(y, 0.0),
    "gelu": lambda y: y * 0.5 * (1 + np.vectorize(erf)(y / 2**0.5)),
}


def plain_loop(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None = None,
    activation: str | None = None,
) -> np.ndarray:
    """(K, M, E) in float64, one sub-model after the other."""
    w = weight.double().numpy()
    score = np.abs(w) if saliency is None else saliency.double().numpy()
    shift = 0.0 if bias is None else bias.double().numpy()
    layers = [
        one @ np.where(score >= float(t), w, 0.0).T + shift
        for one, t in zip(x.double().numpy(), thresholds, strict=True)
    ]
    return np.asarray(ACTIVATIONS[activation](np.stack(layers)))


def close(ours: Tensor, wanted: np.ndarray, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(ours.double().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no_bias"])
def test_matches_plain_loop(
    draw: Draw,
    shape: tuple[int, int, int, int],
    activation: str | None,
    biased: bool,
    backend: Backend,
) -> None:
    sub_models, rows, inputs, outputs = shape
    x, w = draw(sub_models, rows, inputs), draw(outputs, inputs) / inputs**0.5
    b = draw(outputs) if biased else None
    t = torch.linspace(0.0, float(w.abs().max()), sub_models)
    ours = masked_linear(x, w, b, t, activation=activation, backend=backend)  # type: ignore[arg-type]
    close(ours, plain_loop(x, w, b, t, None, activation))


def check_dtype(draw: Draw, dtype: torch.dtype, tolerance: float, backend: Backend) -> None:
    x, w, b = (y.to(dtype) for y in (draw(2, 9, 40), draw(11, 40) / 6, draw(11)))
    t = torch.tensor([0.05, 0.2])
    ours = masked_linear(x, w, b, t, activation="gelu", backend=backend)
    assert ours.dtype == dtype
    close(ours, plain_loop(x, w, b, t, None, "gelu"), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float16, 2e-3)])
def test_float64_and_float16_results_have_the_dtype_of_the_input(
    draw: Draw, dtype: torch.dtype, tolerance: float
) -> None:
    check_dtype(draw, dtype, tolerance, "auto")


def test_bfloat16_results_have_the_dtype_of_the_input(draw: Draw, backend: Backend) -> None:
    check_dtype(draw, torch.bfloat16, 1e-2, backend)


@pytest.mark.parametrize("source", ["given", "random"])
def test_saliency(draw: Draw, source: str, backend: Backend) -> None:
    x, w, t = draw(3, 8, 11), draw(6, 11), torch.tensor([-0.5, 0.2, 0.7])
    given = draw(6, 11) if source == "given" else philox.uniform((6, 11), 5)
    ours = masked_linear(
        x, w, None, t, saliency=given if source == "given" else ("random", 5), backend=backend
    )
    close(ours, plain_loop(x, w, None, t, given))


def test_keep_all_is_dense_keep_none_is_the_bias_and_ties_stay(
    draw: Draw, backend: Backend
) -> None:
    x, w, b = draw(3, 5, 8), draw(4, 8).sign() * 0.5, draw(4)
    ours = masked_linear(x, w, b, torch.tensor([0.0, 0.5, 0.6]), backend=backend)
    torch.testing.assert_close(ours[:2], torch.nn.functional.linear(x[:2], w, b))
    assert torch.equal(ours[0], masked_linear(x[:1], w, b, torch.zeros(1), backend=backend)[0])
    assert torch.equal(ours[2], b.expand(5, 4))


def test_a_shared_input_views_and_no_rows(draw: Draw, backend: Backend) -> None:
    w, t = draw(6, 10)[:, ::2], torch.tensor([0.0, 0.3, 0.9])
    x = draw(1, 7, 5).expand(3, 7, 5)
    close(masked_linear(x, w, None, t, backend=backend), plain_loop(x, w, None, t))
    assert masked_linear(x[:, :0], w, None, t, backend=backend).shape == (3, 0, 6)


def test_operator_is_registered_as_it_behaves(draw: Draw, backend: Backend) -> None:
    torch.library.opcheck(
        torch.ops.lc_engine.masked_linear.default,
        (draw(2, 4, 5), draw(3, 5), draw(3), torch.tensor([0.0, 0.5]), None, None, "gelu", backend),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3, 4)}, r"x must have shape \(K, M, 4\)"),
        ({"x": torch.ones(2, 3, 4).half()}, "weight is torch.float32 but x is torch.float16"),
        ({"bias": torch.ones(4)}, r"bias must have shape \(5\)"),
        ({"thresholds": torch.ones(3)}, r"thresholds must have shape \(2\)"),
        ({"thresholds": torch.tensor([1.0, 0.0])}, "thresholds must be ascending"),
        ({"saliency": torch.ones(4, 5)}, r"saliency must have shape \(5, 4\)"),
        ({"activation": "tanh"}, "activation must be None or one of"),
        (
            {"x": torch.ones(2, 3, 4).half(), "weight": torch.ones(5, 4).half()}
            | {"backend": "native"},
            "backend='native' takes float32 or bfloat16 on a CPU, got torch.float16",
        ),
        ({"backend": "triton"}, "takes float32, bfloat16 or float16 on a GPU"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    arguments = {
        "x": torch.ones(2, 3, 4),
        "weight": torch.ones(5, 4),
        "bias": None,
        "thresholds": torch.zeros(2),
    } | change
    with pytest.raises(ValueError, match=message):
        masked_linear(**arguments)  # type: ignore[arg-type]
