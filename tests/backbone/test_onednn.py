"""Fused oneDNN layers: what they compute, what they keep of NaN, and what happens without them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lc_engine.backbone import onednn
from lc_engine.backbone.layer_kernels import build, fastest_kernel
from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import fold_batch_norm
from lc_engine.ops import FallbackWarning, contract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)

ACTIVATIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "hardswish": functional.hardswish,
}
CONVOLUTIONS = {
    "1x1": nn.Conv2d(16, 40, 1),
    "1x1 narrows": nn.Conv2d(16, 8, 1, bias=False),
    "3x3": nn.Conv2d(16, 24, 3, padding=1),
    "strided": nn.Conv2d(3, 32, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(16, 24, 3, padding=2, dilation=2),
    "grouped": nn.Conv2d(16, 32, 3, groups=4),
    "depthwise": nn.Conv2d(16, 16, 5, padding=2, groups=16),
}
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture
def operators() -> Iterator[None]:
    """Asks again which operators torch has, and warns again."""
    for cached in (onednn.available, contract.warn_once):
        cached.cache_clear()
    yield
    onednn.available.cache_clear()


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    rough = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(
        found.double(), wanted, rtol=rough, atol=rough * wanted.abs().max().item()
    )


def images(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    x = 3 * torch.randn(2, layer.in_channels, 16, 16)
    return x.to(dtype, memory_format=torch.channels_last)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_as_in_float64(name: str, dtype: torch.dtype, activation: Any) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(CONVOLUTIONS[name]).to(dtype, memory_format=torch.channels_last)
    x = images(layer, dtype)
    with torch.inference_mode():
        found = build("packed", layer, x, activation)(x)
        wanted = ACTIVATIONS[activation](layer.double()(x.double()))
    close(found, wanted, dtype)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_linear_layers_are_as_in_float64(dtype: torch.dtype, activation: Any) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(40, 72).to(dtype), 3 * torch.randn(2, 50, 40).to(dtype)
    with torch.inference_mode():
        found = build("packed", layer, x, activation)(x)
        wanted = ACTIVATIONS[activation](layer.double()(x.double()))
    close(found, wanted, dtype)


def test_with_a_batch_norm_folded_into_a_convolution() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU6()).eval()
    norm = model[1]
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 2)
    x = images(model[0], torch.float32)
    with torch.inference_mode():
        wanted = copy.deepcopy(model).double()(x.double())
    assert fold_batch_norm.apply(ModelCopy(model, x, layers=[model[0]]))
    with torch.inference_mode():
        close(build("packed", model[0], x, "relu6")(x), wanted, torch.float32)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_nan_is_kept(value: float, channels: int, activation: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 24, 1)  # widens: its inputs are checked before ReLU6 is fused
    x = torch.randn(2, 8, 16, 16)
    x[1, :channels, 3, 3] = value
    with torch.inference_mode():
        found = build("packed", layer, x, activation)(x)
        bare = build("packed", layer, x, None)(x)
    assert found[bare.isnan()].isnan().all()
    plain = bare.abs() < 1e9
    torch.testing.assert_close(found[plain], ACTIVATIONS[activation](bare[plain]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_seen(value: float) -> None:
    layer, x = nn.Conv2d(8, 24, 1), torch.zeros(2, 8, 16, 16)
    with torch.inference_mode():
        layer.weight[2, 3] = value
        assert build("packed", layer, x, "relu6")(x)[:, 2].isnan().all()


def test_torch_without_the_operators_runs_its_own_layers(
    monkeypatch: pytest.MonkeyPatch, operators: None
) -> None:
    layer, x = nn.Conv2d(16, 40, 1), torch.randn(2, 16, 16, 16)
    assert fastest_kernel(layer, x, int8=False) == "packed"
    onednn.available.cache_clear()
    monkeypatch.setitem(onednn._SCHEMAS, "_linear_pointwise", "(Tensor X) -> Tensor Y")
    with pytest.warns(FallbackWarning, match="other operators mkldnn::_linear_pointwise than"):
        assert fastest_kernel(layer, x, int8=False) == "dense"
    assert not onednn.multiplies(torch.float32)
    monkeypatch.setitem(onednn._SCHEMAS, "_no_such_operator", "(Tensor X) -> Tensor Y")
    assert onednn._schema("_no_such_operator") == ""
