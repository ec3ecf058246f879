"""Layers run through the kernel that is fastest for their weights."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from lc_engine.backbone import onednn
from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import fast_layers
from lc_engine.backbone.recognize import has_kernel
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO
from lc_engine.ops import SparseLayerPlan, WinogradPlan, contract
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared
from lc_engine.submodels import Submodels

pytestmark = pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")

PATH = LearningPath.explicit([1.0, 0.4, 0.1])


class Counted(SparseLayerPlan):
    """Counts the calls of sparse kernels."""

    calls = 0

    def __call__(self, x):
        Counted.calls += 1
        return super().__call__(x)


class CountedWinograd(WinogradPlan):
    """Counts the calls of Winograd's method."""

    calls = 0

    def __call__(self, x):
        CountedWinograd.calls += 1
        return super().__call__(x)


@pytest.fixture
def winograd(monkeypatch):
    monkeypatch.setattr("lc_engine.ops.WinogradPlan", CountedWinograd)
    CountedWinograd.calls = 0
    return CountedWinograd


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr("lc_engine.ops.SparseLayerPlan", Counted)
    Counted.calls = 0
    return Counted


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "convolutions":
        return timm.create_model("resnet18", num_classes=10, zero_init_last=False).eval()
    return timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10, depth=3).eval()


def rewritten(layer: nn.Module, dtype: torch.dtype) -> ModelCopy:
    """Give a layer its kernels, if it has any."""
    layers = [layer] if has_kernel(layer, dtype) else []
    changed = ModelCopy(layer, torch.zeros(()), layers=layers, dtype=dtype)
    assert fast_layers.apply(changed) == bool(layers)
    return changed


@pytest.mark.parametrize("kind", ["magnitude", "random"])
@pytest.mark.parametrize("name", ["convolutions", "tokens"])
@pytest.mark.slow
def test_features_are_those_of_the_masked_model(counted, name, kind):
    model, masking = network(name), Masking(kind)
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        views = Prepared(model, AUTO, masking, PATH).views(x, torch.float32)
        views.features(x, [0])
        assert counted.calls == 0 or name == "convolutions"  # all weights, but for global masks
        before = counted.calls
        found = views.features(x, range(3))
        assert counted.calls >= before + 12
        again = views.features(x, [2, 0, 1])
        with Submodels(model, PATH, masking) as submodels:
            for k in range(3):
                submodels.at(k)
                logits = model(x)
                scored = views.logits(x, [k])[0]
                scale = logits.abs().max().item()
                torch.testing.assert_close(scored, logits, rtol=1e-4, atol=1e-4 * scale)
    torch.testing.assert_close(again, found[[2, 0, 1]], rtol=1e-5, atol=1e-5)


def test_a_kernel_has_the_weights_of_the_time_when_it_was_built(counted):
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 64), torch.randn(2, 50, 64)
    changed = rewritten(layer, torch.float32)
    with torch.no_grad():
        layer.weight *= torch.rand(64, 64) < 0.1
        first = layer(x)
        layer.weight *= 2
        changed.kernels.clear()
        second = layer(x)
    assert counted.calls == 2
    torch.testing.assert_close(second - layer.bias, 2 * (first - layer.bias), rtol=1e-5, atol=1e-5)


def test_a_model_may_name_the_input(counted):
    layer, x = nn.Linear(64, 64), torch.randn(2, 50, 64)
    with torch.no_grad():
        layer.weight *= torch.rand(64, 64) < 0.1
        rewritten(layer, torch.float32)
        assert torch.equal(layer(input=x), layer(x))
    assert counted.calls == 2


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(64, 64), torch.randn(40, 64)),  # a row per sample
        (nn.Conv2d(32, 32, 3, groups=32), torch.randn(2, 32, 8, 8)),
        (nn.Conv2d(32, 32, 3, padding="same"), torch.randn(2, 32, 8, 8)),
        (nn.Conv2d(32, 32, 3, padding_mode="circular", padding=1), torch.randn(2, 32, 8, 8)),
        (nn.Conv2d(3, 32, 3), torch.randn(2, 3, 8, 8)),
        (nn.Linear(64, 64).double(), torch.randn(2, 50, 64).double()),
        (nn.Bilinear(4, 4, 4), None),
    ],
    ids=["one row", "grouped", "same", "circular", "three channels", "float64", "another kind"],
)
def test_other_layers_are_not_sparse(counted, layer, x):
    with torch.no_grad():
        layer.weight *= torch.rand_like(layer.weight) < 0.05
        want = None if x is None else layer(x)
        rewritten(layer, layer.weight.dtype)
        assert x is None or torch.equal(layer(x), want)
    assert counted.calls == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.slow
def test_dense_convolutions_take_winograd_s_method(winograd, dtype):
    model, path = network("convolutions"), LearningPath.explicit([1.0, 0.8])
    x = torch.randn(5, 3, 64, 64)
    with torch.inference_mode():
        views = Prepared(model, AUTO, Masking(), path).views(x, dtype)
        before = winograd.calls
        found = views.features(x, range(2))
        assert winograd.calls == before + 2 * 7  # of two stages; the others have too few pixels
        with Submodels(model, path) as submodels:
            for k in range(2):
                submodels.at(k)
                wanted = model.forward_head(model.forward_features(x), pre_logits=True)
                rough = 1e-4 if dtype == torch.float32 else 5e-2
                torch.testing.assert_close(
                    found[k].float(), wanted, rtol=rough, atol=rough * wanted.abs().max().item()
                )


@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (nn.Conv2d(64, 64, 3, padding=1, stride=2), 16),
        (nn.Conv2d(64, 64, 3, padding=2, dilation=2), 16),
        (nn.Conv2d(64, 64, 5, padding=2), 16),
        (nn.Conv2d(24, 64, 3, padding=1), 16),
        (nn.Conv2d(64, 24, 3, padding=1), 16),
        (nn.Conv2d(64, 64, 3, padding=1), 7),  # 2 x 16 tiles
        (nn.Conv2d(64, 64, 3, padding=1, groups=2), 16),
    ],
    ids=["stride", "dilation", "five", "inputs", "outputs", "small", "grouped"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_convolutions_are_packed(monkeypatch, winograd, layer, side, dtype):
    packed, pack = [], onednn.packed_convolution

    def counting(*arguments):
        packed.append(arguments)
        return pack(*arguments)

    monkeypatch.setattr(onednn, "packed_convolution", counting)
    layer = copy.deepcopy(layer).to(dtype, memory_format=torch.channels_last)
    x = torch.randn(2, layer.in_channels, side, side).to(dtype, memory_format=torch.channels_last)
    with torch.inference_mode():
        wanted, wanted_few = layer(x), layer(x[:1, :, 1:])
        rewritten(layer, dtype)
        for _ in range(2):
            torch.testing.assert_close(layer(x), wanted, rtol=1e-2, atol=1e-2)
        assert layer(x).is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(x[:1, :, 1:]), wanted_few, rtol=1e-2, atol=1e-2)
    assert winograd.calls == 0
    assert len(packed) == (side == 16)  # too few pixels to pack for


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dense_linear_layers_are_packed_once(monkeypatch, dtype):
    packed = []
    pack = onednn.packed_linear

    def counting(*arguments):
        packed.append(arguments)
        return pack(*arguments)

    monkeypatch.setattr(onednn, "packed_linear", counting)
    for bias in (True, False):
        layer = nn.Linear(72, 40, bias=bias).to(dtype)
        x, few = torch.randn(3, 100, 72).to(dtype), torch.randn(3, 10, 72).to(dtype)
        with torch.inference_mode():
            wanted, wanted_few = layer(x), layer(few)
            changed = rewritten(layer, dtype)
            for _ in range(3):
                torch.testing.assert_close(layer(x), wanted)
            assert len(packed) == 1
            layer.weight *= 2
            changed.kernels.clear()
            assert torch.equal(layer(few), layer(few))
            assert not torch.equal(layer(few), wanted_few)
        assert len(packed) == 1  # too few rows to pack for
        packed.clear()


@pytest.mark.parametrize("kept", [1.0, 0.1], ids=["dense", "sparse"])
@pytest.mark.parametrize("activation", [None, nn.ReLU6(), nn.SiLU()], ids=str)
@pytest.mark.parametrize(
    "layer",
    [
        Conv2dSame(24, 40, 3, stride=2),
        Conv2dSame(3, 24, (5, 2), stride=(2, 3), dilation=(1, 2), bias=False),
    ],
    ids=["odd", "uneven"],
)
def test_a_convolution_that_pads_as_tensorflow_does(counted, layer, activation, kept):
    assert has_kernel(layer, torch.float32)
    own = copy.deepcopy(layer)
    x = torch.randn(4, layer.in_channels, 33, 38).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        own.weight *= torch.rand(own.weight.shape) < kept
        activations = {} if activation is None else {own: activation}
        wanted = own.double()(x.double())
        wanted = wanted if activation is None else activation(wanted)
        own.float()
        fast_layers.apply(ModelCopy(own, x, layers=[own], activations=activations))
        torch.testing.assert_close(own(x), wanted.float(), rtol=1e-5, atol=1e-5)
    assert counted.calls == (kept < 1 and layer.in_channels == 24)


def test_a_padding_that_is_wider_than_the_inputs(monkeypatch):
    monkeypatch.setattr(fast_layers.tuning, "PACKED_ROWS", 1)
    layer = Conv2dSame(16, 32, 5, stride=2, dilation=2)  # spans 9, of 6 × 4 inputs
    own, x = copy.deepcopy(layer), torch.randn(8, 16, 6, 4)
    with torch.no_grad():
        fast_layers.apply(ModelCopy(own, x, layers=[own], activations={}))
        torch.testing.assert_close(own(x), layer.double()(x.double()).float())
