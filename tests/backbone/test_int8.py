"""dtype="int8": layers of a working copy multiplied in 8 bits, and two of them as one."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import lc_engine as lc
from lc_engine.backbone.dtypes import beside_int8, check_int8
from lc_engine.backbone.passes.fuse_activations import fuse_activations, fuse_chains
from lc_engine.ops import (
    FallbackWarning,
    Int8ConvolutionPlan,
    Int8LinearPlan,
    WinogradPlan,
    contract,
)
from lc_engine.scorer.prepared import Prepared

PATH = lc.LearningPath.explicit([1.0, 0.6, 0.05])
needs_core = pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, ...]]]:
    """Note the weights' shapes of each plan in 8 bits."""
    shapes: list[list[tuple[int, ...]]] = []

    class Noted(Int8LinearPlan):
        def __init__(self, weights, biases, activations, norm=None) -> None:
            normed = ["norm"] if norm is not None else []
            shapes.append([*normed, *(tuple(weight.shape) for weight in weights)])
            super().__init__(weights, biases, activations, norm)

    monkeypatch.setattr("lc_engine.ops.Int8LinearPlan", Noted)
    return shapes


def vit(depth: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=96, depth=depth, num_classes=7).eval()


def views(model: nn.Module, x: torch.Tensor, dtype: torch.dtype, masking=None):
    return Prepared(model, "auto", masking or lc.Masking(), PATH).views(x, dtype)


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@needs_core
def test_a_transformer_is_close_to_float32_and_its_mlps_are_one(made) -> None:
    model, x = vit(), torch.randn(9, 3, 96, 96)
    with torch.inference_mode():
        exact = views(model, x, torch.float32).features(x, range(3))
        assert not made
        copy = views(model, x, torch.int8)
        assert copy.dtype == beside_int8()
        found = copy.features(x, range(3))
        assert torch.equal(copy.features(x, range(3)), found)
    for k in range(2):
        assert distance(found[k], exact[k]) < 0.03
    assert made.count(["norm", (768, 192), (192, 768)]) >= 6
    assert made.count(["norm", (576, 192)]) >= 6
    assert made.count([(192, 192)]) >= 6
    assert [(768, 192)] not in made


@needs_core
def test_a_row_does_not_depend_on_its_batch() -> None:
    model, x = vit(2), torch.randn(11, 3, 96, 96)
    with torch.inference_mode():
        copy = views(model, x, torch.int8)
        whole = copy.features(x, [1])[0]
        assert distance(copy.features(x[4:], [1])[0], whole[4:]) < 1e-2


@needs_core
def test_convolutions_of_one_pixel_are_linear_layers(made) -> None:
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_lite0", num_classes=5).eval()
    x = torch.randn(4, 3, 96, 96)
    with torch.inference_mode():
        exact = views(model, x, torch.float32).features(x, [0])
        found = views(model, x, torch.int8).features(x, [0])
    assert len(made) >= 8  # those over fewer pixels are not worth it
    assert all(len(shapes) == 1 for shapes in made)
    assert distance(found, exact) < 0.1


@needs_core
def test_convolutions_are_direct_or_by_winograds_method(monkeypatch: pytest.MonkeyPatch) -> None:
    direct, winograds = [], []

    class Direct(Int8ConvolutionPlan):
        def __init__(self, weight, *others, **named) -> None:
            direct.append((*weight.shape[1:], *named["stride"]))
            super().__init__(weight, *others, **named)

    class Winograds(WinogradPlan):
        def __init__(self, weight, *others, int8: bool, **named) -> None:
            winograds.append(int8)
            super().__init__(weight, *others, int8=int8, **named)

    monkeypatch.setattr("lc_engine.ops.Int8ConvolutionPlan", Direct)
    monkeypatch.setattr("lc_engine.ops.WinogradPlan", Winograds)
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=5, zero_init_last=False).eval()
    x = torch.randn(16, 3, 96, 96)
    with torch.inference_mode():
        exact = views(model, x, torch.float32).features(x, [0])
        assert winograds
        assert not any(winograds)
        winograds.clear()
        found = views(model, x, torch.int8).features(x, [0])
    assert winograds
    assert all(winograds)
    assert {(3, 7, 7, 2, 2), (64, 3, 3, 2, 2), (64, 1, 1, 2, 2)} <= set(direct)
    assert distance(found, exact) < 0.1


@needs_core
def test_injected_dropout_drops_between_the_layers_of_an_mlp(made) -> None:
    model, x = vit(2), torch.randn(9, 3, 96, 96)
    masking = lc.Masking("dropout")
    with torch.inference_mode():
        exact = views(model, x, torch.float32, masking).features(x, [1])
        found = views(model, x, torch.int8, masking).features(x, [1])
    assert [(768, 192)] in made
    assert distance(found, exact) < 0.03


@needs_core
def test_real_pictures_rank_as_in_float32(lite0, pictures) -> None:
    x, labels = pictures
    losses = {}
    for dtype in ("float32", "int8"):
        scorer = lc.Scorer(lite0, path=lc.LearningPath.explicit([1.0, 0.9, 0.8]), head="linear")
        scorer.dtype = dtype
        losses[dtype] = scorer.score_batch((x, labels)).loss
    ranks = torch.stack([loss.argsort().argsort().double() for loss in losses.values()])
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.95
    assert scorer.describe()["dtype"] == "int8"


class Chain(nn.Module):
    """Two linear layers, with what a test asks between them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.norm = nn.LayerNorm(6)
        self.one, self.act, self.two = nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6)
        self.drop = nn.Dropout(0.5)
        self.three = nn.Linear(6, 6)

    def forward(self, x):
        start = self.norm(x) if "norm" in self.kind else x
        y = self.drop(self.act(self.one(start)))
        if self.kind == "functional":
            y = y * 2
        z = self.two(y)
        if self.kind == "used elsewhere":
            return z + y[..., :6]
        if self.kind == "three":
            return self.three(z)
        return z + (start if self.kind == "norm used elsewhere" else x)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("plain", [("one", "two")]),
        ("functional", []),
        ("used elsewhere", []),
        ("three", [("one", "two")]),
        ("norm", [("norm", "one"), ("one", "two")]),
        ("norm used elsewhere", []),
    ],
)
def test_chains(kind: str, found: list[tuple[str, str]]) -> None:
    torch.manual_seed(0)
    model, x = Chain(kind).eval(), torch.randn(4, 5, 6)
    layers = [model.one, model.two, model.three]
    want = model(x)
    activations = fuse_activations(model, x, layers)
    chains = fuse_chains(model, x, layers, activations)
    names = {module: name for name, module in model.named_modules()}
    assert [(names[first], names[second]) for second, first in chains.items()] == found
    for layer, activation in activations.items():
        layer.register_forward_hook(lambda _, __, y, activation=activation: activation(y))
    torch.testing.assert_close(model(x), want)  # the model is as it was


def test_a_chain_is_not_made_across_a_hook() -> None:
    model, x = Chain("plain").eval(), torch.randn(4, 5, 6)
    model.one.register_forward_hook(lambda *_: None)
    assert fuse_chains(model, x, [model.one, model.two], {}) == {}


def test_where_it_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = torch.randn(4, 3, 96, 96), torch.arange(4)
    with pytest.raises(ValueError, match='"int8" is for masked layers before a classifier'):
        lc.score(lc.Scorer(vit(), masking=lc.Exits(), dtype="int8"), (x, labels))
    with pytest.raises(ValueError, match='"int8" is for a CPU, and the model is on meta'):
        check_int8(torch.device("meta"))
    with pytest.raises(ValueError, match="dtype must be one of"):
        lc.Scorer(vit(), dtype="int4")
    monkeypatch.setattr(contract, "native", lambda: None)
    with pytest.raises(ValueError, match='"int8" needs the C\\+\\+ core'):
        check_int8(torch.device("cpu"))


def test_a_processor_without_such_products_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        @staticmethod
        def multiplies_int8() -> bool:
            return False

    monkeypatch.setattr(contract, "native", Core)
    contract.warn_once.cache_clear()
    with pytest.warns(FallbackWarning, match="without AVX512-VNNI is slower"):
        check_int8(torch.device("cpu"))
