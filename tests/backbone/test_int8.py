"""dtype="int8": layers that multiply in int8, two of them in one call."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import lc_engine as lc
from lc_engine.backbone.dtypes import check_int8, unquantized_dtype
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
def plans(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, ...]]]:
    """The weight shapes of each int8 plan."""
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
def test_a_transformer_is_close_to_float32_and_its_mlps_run_in_one_call(plans) -> None:
    model, x = vit(), torch.randn(9, 3, 96, 96)
    with torch.inference_mode():
        exact = views(model, x, torch.float32).features(x, range(3))
        assert not plans
        copy = views(model, x, torch.int8)
        assert copy.dtype == unquantized_dtype()
        found = copy.features(x, range(3))
        assert torch.equal(copy.features(x, range(3)), found)
    for k in range(2):
        assert distance(found[k], exact[k]) < 0.03
    assert plans.count(["norm", (768, 192), (192, 768)]) >= 6
    assert plans.count(["norm", (576, 192)]) >= 6
    assert plans.count([(192, 192)]) >= 6
    assert [(768, 192)] not in plans


@needs_core
def test_a_row_does_not_depend_on_its_batch() -> None:
    model, x = vit(2), torch.randn(11, 3, 96, 96)
    with torch.inference_mode():
        copy = views(model, x, torch.int8)
        whole = copy.features(x, [1])[0]
        assert distance(copy.features(x[4:], [1])[0], whole[4:]) < 1e-2


@needs_core
@pytest.mark.slow
def test_pointwise_convolutions_are_linear_layers(plans) -> None:
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_lite0", num_classes=5).eval()
    x = torch.randn(4, 3, 96, 96)
    with torch.inference_mode():
        exact = views(model, x, torch.float32).features(x, [0])
        found = views(model, x, torch.int8).features(x, [0])
    assert len(plans) >= 8  # over fewer pixels int8 is slower
    assert all(len(shapes) == 1 for shapes in plans)
    assert distance(found, exact) < 0.1


@needs_core
@pytest.mark.slow
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
def test_dropout_between_the_layers_of_an_mlp(plans) -> None:
    model, x = vit(2), torch.randn(9, 3, 96, 96)
    masking = lc.Masking("dropout")
    with torch.inference_mode():
        exact = views(model, x, torch.float32, masking).features(x, [1])
        found = views(model, x, torch.int8, masking).features(x, [1])
    assert [(768, 192)] in plans
    assert distance(found, exact) < 0.03


@needs_core
def test_real_images_rank_as_in_float32(lite0, images) -> None:
    x, labels = images
    losses = {}
    for dtype in ("float32", "int8"):
        scorer = lc.Scorer(lite0, path=lc.LearningPath.explicit([1.0, 0.9, 0.8]), head="linear")
        scorer.dtype = dtype
        losses[dtype] = scorer.score_batch((x, labels)).loss
    ranks = torch.stack([loss.argsort().argsort().double() for loss in losses.values()])
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.95
    assert scorer.describe()["dtype"] == "int8"


def test_errors_where_int8_is_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_processor_without_int8_products_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        @staticmethod
        def multiplies_int8() -> bool:
            return False

    monkeypatch.setattr(contract, "native", Core)
    contract.warn_once.cache_clear()
    with pytest.warns(FallbackWarning, match="without AVX512-VNNI is slower"):
        check_int8(torch.device("cpu"))
