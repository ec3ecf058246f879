"""An activation that is the only consumer of a layer's output is fused into the layer."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import fast_layers, fold_batch_norm, fuse_activations
from lc_engine.backbone.recognize import activation_of
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO
from lc_engine.ops import contract
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared

PATH = LearningPath.explicit([1.0, 0.5, 0.1])


def layers_of(model: nn.Module) -> list[nn.Module]:
    return [part for part in model.modules() if isinstance(part, (nn.Linear, nn.Conv2d))]


def activations(
    model: nn.Module, x: torch.Tensor, layers: list[nn.Module], classifier: str | None = None
) -> dict[nn.Module, nn.Module]:
    """Fuse activations into layers, and return them by layer."""
    rewritten = ModelCopy(model, x, layers=layers, classifier=classifier)
    assert fuse_activations.apply(rewritten) == bool(rewritten.activations)
    return rewritten.activations


def fused(model: nn.Module, x: torch.Tensor, classifier: str | None = None) -> dict[str, str]:
    """Return what is fused by name; check that layers and activations return what they did."""
    with torch.no_grad():
        want, twin = model(x.clone()), copy.deepcopy(model)
        found = activations(twin, x, layers_of(twin), classifier)
        for layer, activation in found.items():
            layer.register_forward_hook(lambda _, __, y, activation=activation: activation(y))
        assert torch.equal(twin(x.clone()), want)
    names = {module: name for name, module in twin.named_modules()}
    return {names[layer]: activation_of(activation) for layer, activation in found.items()}


class Branches(nn.Module):
    """A layer and an activation, with more around them as a test asks."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.identity, self.act = nn.Identity(), nn.ReLU(inplace=kind != "kept")

    def forward(self, x):
        y = self.one(x)
        if self.kind == "in between":
            y += x  # the same tensor, but no longer the layer's output
        if self.kind == "functional":
            return self.act(y.clone()) + self.two(x) * y
        if self.kind == "kept":
            return self.two(self.act(y)) + y
        if self.kind == "reads attribute":
            return self.two(self.act(y)) * (1.0 if self.act.inplace else 2.0)
        if self.kind == "two consumers":
            return self.two(y) + self.act(y)
        if self.kind == "twice":
            return self.act(self.two(self.act(y)))
        if self.kind == "shared layer":
            return self.act(self.one(y))
        if self.kind == "not finite":
            return self.act(y) / 0
        return self.two(self.act(self.identity(y)))


def test_an_identity_between_layer_and_activation_is_looked_through() -> None:
    torch.manual_seed(0)
    assert fused(Branches("plain"), torch.randn(3, 6)) == {"one": "relu"}


@pytest.mark.parametrize(
    "kind",
    [
        "in between",
        "functional",
        "kept",
        "reads attribute",
        "two consumers",
        "twice",
        "shared layer",
        "not finite",
    ],
)
def test_an_activation_that_is_not_the_only_consumer_stays(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Branches(kind), torch.randn(3, 6)
    modules = dict(model.named_modules())
    assert activations(model, x, layers_of(model)) == {}
    assert dict(model.named_modules()) == modules


def test_it_works_within_inference_mode() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        for kind, found in (("plain", {"one": "relu"}), ("in between", {})):
            assert fused(Branches(kind), torch.randn(3, 6)) == found


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.ReLU(), "relu"),
        (nn.ReLU(inplace=True), "relu"),
        (nn.ReLU6(inplace=True), "relu6"),
        (nn.SiLU(inplace=True), "silu"),
        (nn.Hardswish(), "hardswish"),
        (nn.GELU(), "gelu"),
        (nn.GELU("tanh"), "gelu_tanh"),
        (timm.layers.GELU(), "gelu"),
        (timm.layers.GELUTanh(), "gelu_tanh"),
    ],
)
def test_known_activations(activation: nn.Module, name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), activation, nn.Conv2d(3, 2, 1))
    assert fused(model, 4 * torch.randn(2, 2, 6, 5)) == {"0": name}


class Doubled(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("activation", [nn.Mish(), nn.Hardtanh(0, 6), Doubled(), nn.Softmax(-1)])
def test_other_activations_stay(activation: nn.Module) -> None:
    assert activation_of(activation) is None
    assert fused(nn.Sequential(nn.Linear(4, 4), activation), torch.randn(3, 4)) == {}


def test_only_given_layers() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    found = activations(model, torch.randn(3, 4), [model[2]])
    assert list(found) == [model[2]]
    assert isinstance(model[1], nn.ReLU)


@pytest.mark.parametrize(
    ("classifier", "names"),
    [
        (None, {"0", "1.1"}),
        ("", {"0", "1.1"}),
        ("0", {"1.1"}),
        ("1", set()),
        ("1.0", {"1.1"}),
        ("1.1", {"0"}),
        ("2", {"0"}),
        ("3", {"0", "1.1"}),
    ],
)
def test_inputs_and_outputs_of_the_classifier_stay(classifier: str | None, names: set[str]) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
    model = nn.Sequential(nn.Linear(4, 4), inner, nn.ReLU(), nn.Linear(4, 4))
    assert set(fused(model, torch.randn(3, 4), classifier)) == names


def test_hooks_see_the_same_tensors() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    seen = []
    model[0].register_forward_hook(lambda *args: seen.append(args[2]))
    found = activations(model, torch.randn(3, 4), layers_of(model))
    assert list(found) == [model[2]]


def test_the_activation_of_a_folded_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), timm.layers.BatchNormAct2d(8), nn.Conv2d(8, 4, 1)
    ).eval()
    x = torch.randn(2, 3, 7, 7)
    assert fused(model, x) == {}
    fold_batch_norm.apply(ModelCopy(model, x))
    assert fused(model, x) == {"0": "relu"}


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet18", {}, 9),  # not those after a sum
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 3}, 3),
        ("efficientnet_lite0", {}, 33),
    ],
)
@pytest.mark.slow
def test_networks(name: str, options: dict, count: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **options).eval()
    x = torch.randn(2, 3, 64, 64)
    fold_batch_norm.apply(ModelCopy(model, x))
    assert len(fused(model, x)) == count


@pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.GELU("tanh")], ids=str)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(48, 40), (9, 48)),  # torch's
        (nn.Linear(48, 40), (3, 101, 48)),  # packed
        (nn.Conv2d(32, 33, 3, padding=1, bias=False), (3, 32, 11, 9)),  # Winograd's
        (nn.Conv2d(17, 33, 3, stride=2), (3, 17, 27, 25)),  # packed
        (nn.Conv2d(32, 32, 3, padding=1, groups=4), (3, 32, 11, 9)),
        (nn.Conv2d(17, 33, 3), (2, 17, 4, 4)),  # torch's
    ],
)
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_every_kernel_applies_it(
    layer: nn.Module,
    shape: tuple[int, ...],
    activation: nn.Module,
    density: float,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).to(dtype)
    x = (6 * torch.randn(shape)).to(dtype)
    if density == 1:  # a sparse kernel leaves out the product of a NaN and a zero
        x[0, 3] = torch.nan
    with torch.inference_mode():
        layer.weight *= torch.rand_like(layer.weight) < density
        want = activation(copy.deepcopy(layer).double()(x.double()))
        rewritten = ModelCopy(layer, x, layers=[layer], activations={layer: activation})
        fast_layers.apply(rewritten)
        found = layer(x).double()
    rough = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        found, want, rtol=rough, atol=rough * want.nan_to_num().abs().max().item(), equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["magnitude", "random"])
def test_a_classifier_may_begin_with_the_activation(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), head).eval()
    masking = Masking(kind, weights=lambda name, module: True)
    x = torch.randn(7, 20)
    with torch.inference_mode():
        views = Prepared(model, "3", masking, PATH).views(x, dtype)
        features, logits = views.features(x, [0])[0], views.logits(x, [0])[0]
        want = model[:3](x)
        rough = 1e-5 if dtype == torch.float32 else 3e-2
        assert features.min() < 0
        torch.testing.assert_close(features.float(), want, rtol=rough, atol=rough)
        torch.testing.assert_close(logits.float(), head(want), rtol=rough, atol=rough)


def test_a_model_in_bfloat16_is_fused_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 64), nn.Linear(64, 3))
    x = torch.randn(2, 50, 20).bfloat16()
    model.to(torch.bfloat16).eval()
    with torch.inference_mode():
        views = Prepared(model, AUTO, Masking(), PATH).views(x, torch.bfloat16)
        found = views.features(x, [0])[0]
        want = functional.gelu(model[0](x).float())
        want = model[2](want.bfloat16()).mean(1)
    torch.testing.assert_close(found, want, rtol=3e-2, atol=3e-2)
