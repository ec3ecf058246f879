from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from torch import nn

from lc_engine.models.classifier import Tap, find_classifier


@pytest.mark.parametrize(
    ("library", "name", "classifier"),
    [
        ("timm", "resnet18", "fc"),
        ("timm", "vit_tiny_patch16_224", "head"),
        ("timm", "convnext_atto", "head.fc"),
        ("timm", "tf_efficientnet_lite0", "classifier"),
        ("torchvision", "resnet18", "fc"),
        ("torchvision", "mobilenet_v3_small", "classifier.3"),
        ("torchvision", "vit_b_16", "heads.head"),
        ("torchvision", "squeezenet1_0", None),
    ],
)
def test_the_classifier_is_found(library, name, classifier):
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    # timm before 1.0.22 computes rates on the device, and without storage there are none.
    with torch.device("cpu" if library == "timm" else "meta"):
        model = make(name)
    assert find_classifier(model) == classifier


def test_a_model_without_its_classifier():
    assert find_classifier(timm.create_model("resnet10t", num_classes=0)) is None
    assert find_classifier(nn.Conv2d(3, 4, 1)) is None
    assert find_classifier(nn.Linear(3, 2)) == ""


def test_a_name_is_checked():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert find_classifier(model, "0") == "0"
    with pytest.raises(ValueError, match='has no module "fc"; its linear modules are 0, 1'):
        find_classifier(model, "fc")
    distilled = timm.create_model("deit_tiny_distilled_patch16_224")
    with pytest.raises(ValueError, match=r"2 classifiers; name one .* head, head_dist"):
        find_classifier(distilled)


@pytest.mark.parametrize("name", ["lite0", "resnet18"])
def test_features_and_logits_are_those_of_the_model(models, images, name):
    model, inputs = models[name], images[0][:3]
    tap = Tap(model)
    with torch.inference_mode():
        maps = model.forward_features(inputs)
        assert torch.equal(tap.features(inputs), model.forward_head(maps, pre_logits=True))
        assert torch.equal(tap.logits(inputs), model(inputs))
        headless = Tap(model, None).features(inputs)
        assert torch.equal(headless, model(inputs))


class Wrapped(nn.Module):
    """Returns an object with logits, calls its classifier by keyword, ends in a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x):
        return SimpleNamespace(logits=self.classifier(input=self.body(x)).softmax(-1))


def test_outputs_with_logits_and_calls_by_keyword():
    model, x = Wrapped(), torch.randn(5, 4)
    tap = Tap(model)
    assert torch.equal(tap.features(x), model.body(x))
    assert torch.equal(tap.logits(x), model.classifier(model.body(x)))  # before the softmax


def test_a_linear_model_gives_its_inputs():
    x = torch.randn(5, 4)
    assert Tap(nn.Linear(4, 3)).features(x) is x
    with pytest.raises(ValueError, match=r"inputs must have shape \(N, 4\).*got \(5, 3\)"):
        Tap(nn.Linear(4, 3)).features(x[:, :3])


def test_maps_are_averaged_and_more_is_refused():
    x = torch.randn(2, 3, 5, 7)
    features = Tap(nn.Conv2d(3, 4, 1)).features(x)
    assert features.shape == (2, 4)
    with pytest.raises(ValueError, match=r"one vector per sample.*got \(2, 3, 1, 1, 6\)"):
        Tap(nn.Sequential(nn.Linear(6, 4)), "0").features(torch.randn(2, 3, 1, 1, 6))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.fc(x))


class Projected(nn.Module):
    """Its last linear module is not its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 9)

    def forward(self, x):
        return self.out(x)[:, :5]


def test_a_wrong_guess_is_said():
    with pytest.raises(ValueError, match='"fc" ran 2 times'):
        Tap(Twice()).features(torch.ones(2, 4))
    with pytest.raises(
        ValueError, match=r'"out" was taken .* returns \(2, 9\) and the model \(2, 5\)'
    ):
        Tap(Projected()).features(torch.ones(2, 4))
    assert Tap(Projected(), None).features(torch.ones(2, 4)).shape == (2, 5)
    assert Tap(Projected(), "out").features(torch.ones(2, 4)).shape == (2, 4)


def test_errors_of_the_forward_name_the_input(models):
    with pytest.raises(ValueError, match=r"cannot take inputs of shape \(2, 1, 8, 8\)"):
        Tap(models["resnet18"]).features(torch.ones(2, 1, 8, 8))

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(
        ValueError, match="must return a tensor, or an object with logits; got tuple"
    ):
        Tap(Pair()).features(torch.ones(2, 3))
    with pytest.raises(
        ValueError, match="needs a model whose classifier is a Linear module, found none"
    ):
        _ = Tap(nn.ReLU()).linear


def test_no_hook_is_left_behind_when_the_forward_fails(models):
    model = models["resnet18"]
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    with pytest.raises(ValueError, match="cannot take"):
        Tap(model).features(torch.ones(2, 1, 8, 8))
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
