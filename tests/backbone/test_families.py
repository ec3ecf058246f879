from __future__ import annotations

import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.networks import Network, tiny_vit
from lc_engine.backbone.families import family_of
from lc_engine.models.classifier import Tap
from lc_engine.path.learning_path import LearningPath

PATH = LearningPath.explicit([1.0, 0.6, 0.2])
X = torch.ones(2, 3, 6, 6)


def family(masking, model=None):
    return family_of(masking, Tap(Network() if model is None else model), PATH)


@pytest.mark.parametrize(
    ("masking", "weights"),
    [
        (lc.Masking(), ["conv.weight", "inner.weight"]),
        (lc.Masking(weights="all"), ["conv.weight", "inner.weight", "fc.weight"]),
        (lc.Masking("dropout", weights="head"), ["fc.weight"]),
        (lc.Masking(weights=lambda name, module: name == "inner"), ["inner.weight"]),
    ],
)
def test_masks_and_dropout_keep_the_path_and_leave_the_head_alone(masking, weights):
    found = family(masking)
    assert found.path is PATH
    assert list(found.weights) == weights
    assert found.head_mask is None
    described = found.describe()
    assert described["tensors"] == len(weights)
    assert described["numel"] == sum(weight.numel() for weight in found.weights.values())
    features = found.views(X, torch.float32).features(X, range(3))
    assert [tuple(values.shape) for values in features] == [(2, 9)] * 3


@pytest.mark.parametrize("kind", ["magnitude", "random", "given"])
def test_a_head_that_alone_is_masked_is_left_to_the_head(kind):
    model = Network()
    saliency = {"fc.weight": torch.rand_like(model.fc.weight)} if kind == "given" else None
    masking = lc.Masking(kind, weights="head", seed=3, saliency=saliency)
    mask = family(masking, model).head_mask
    assert torch.equal(
        mask.thresholds, masking.thresholds({"fc.weight": model.fc.weight}, PATH)[:, 0]
    )
    assert mask.at(2).thresholds.tolist() == [mask.thresholds[2].item()]
    if kind == "given":
        assert torch.equal(mask.saliency, saliency["fc.weight"])
    else:
        assert mask.saliency == {"magnitude": None, "random": ("random", 3)}[kind]


def test_exits_bring_their_path():
    found = family(lc.Exits(), tiny_vit())
    assert found.path.capacities == (1.0, 2 / 3, 1 / 3)
    assert found.describe() == {"modules": ["blocks.0", "blocks.1", "blocks.2"]}
    assert not found.weights
    assert found.head_mask is None


def test_what_does_not_fit_is_refused():
    lone = nn.Linear(5, 3)
    with pytest.raises(ValueError, match="needs a model with layers before its classifier"):
        family(lc.Masking("dropout", weights="head"), lone)
    for masking, model in ((lc.Masking(weights="head"), lone), (lc.Exits(), tiny_vit())):
        with pytest.raises(ValueError, match='"int8" is for masked layers'):
            family(masking, model).views(X, torch.int8)
