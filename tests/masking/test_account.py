"""The account of the masks: counts, shares and what is said of them."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from lc_engine.masking import Masking
from lc_engine.masking.account import account_of
from lc_engine.path.learning_path import LearningPath
from lc_engine.submodels import Submodels

PATH = LearningPath.explicit([1.0, 0.9, 0.6, 0.2])


def weights_of(values):
    """A body of two layers and a head "2", whose weights are drawn from some values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, 60), nn.Linear(60, 30), nn.Linear(30, 5))
        for layer in model[:2]:
            if values is not None:
                chosen = torch.randint(len(values), layer.weight.shape)
                layer.weight.data = torch.tensor(values)[chosen]
    return model


def account(model, masking, path=PATH, head="2"):
    weights = masking.find(model, head)
    return account_of(model, head, masking, weights, masking.masks(weights, path), path)


@pytest.mark.parametrize("values", [None, [-1.0, 0.0, 1.0], [0.0, -0.0, 0.5, -0.25, 3.0]])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("kind", ["magnitude", "random", "given"])
def test_the_counts_are_those_of_the_weights_that_are_left(kind, scope, values):
    model = weights_of(values)
    generator = torch.Generator().manual_seed(2)
    saliency = {
        name: torch.randint(9, value.shape, generator=generator).float()
        for name, value in model.named_parameters()
    }
    masking = Masking(kind, scope=scope, saliency=saliency if kind == "given" else None)
    found = account(model, masking)
    left, kept = [], []
    with Submodels(model, PATH, masking, head="2") as submodels:
        for k in range(len(PATH)):
            submodels.at(k)
            weights = torch.cat([layer.weight.flatten() for layer in model[:2]])
            left.append(weights.clone())
            kept.append(int(torch.count_nonzero(weights)))
    masked = 40 * 60 + 60 * 30
    assert found.masked == masked == found.matrices.total == found.matrices.maskable
    assert found.reached == tuple(count / masked for count in kept)
    assert found.reached_of_body == found.reached
    first = [next(j for j in range(k + 1) if torch.equal(left[j], left[k])) for k in range(4)]
    assert list(found.first_equal) == first


def test_the_share_of_the_matrices_that_can_be_masked():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(50, 80))
            self.places = nn.Parameter(torch.ones(1, 7, 40))
            self.gain = nn.Parameter(torch.ones(40, 1, 1))

    model = nn.Sequential(nn.Linear(40, 60), Odd(), nn.Linear(60, 5), nn.Embedding(100, 40))
    model.append(nn.LayerNorm((7, 40)))
    found = account(model, Masking(), head="2")
    assert (found.matrices.total, found.matrices.maskable) == (40 * 60 + 50 * 80, 40 * 60)
    assert found.matrices.largest == ("1.matrix", "Odd", "float32")
    kept = round(0.6 * 2400)
    assert found.reached_of_body[2] == (kept + 4000) / 6400
    assert '"1.matrix" (Odd, float32)' in found.warning()
    head = account(model, Masking(weights="head"), head="2")
    assert (head.matrices.total, head.maskable_share, head.warning()) == (300, 1.0, None)


def test_zeros_are_warned_of_by_name_with_a_remedy():
    found = account(weights_of([-1.0, 0.0, 1.0]).bfloat16(), Masking())
    assert found.groups == [[0, 1]]
    assert found.missed == 1
    text = found.warning()
    assert "capacity 0.9 was asked for and 0.6717 is reached" in text
    assert '"0.weight", bfloat16, of which 33.8% are zero' in text
    assert "choose capacities up to 0.6717" in text
    assert "capacities 1, 0.9 are one sub-model, which runs once" in text
    assert "capacities 1, 0.9 are one sub-model, which runs once" in found.line()


def test_zeros_of_the_whole_model_alone_are_no_fault():
    whole = LearningPath.explicit([1.0])
    found = account(weights_of([-1.0, 0.0, 1.0]), Masking(), whole)
    assert found.warning() is None
    assert found.line().endswith("none is, as the whole model alone is run")


def test_random_masks_over_many_weights_are_near_what_is_asked(monkeypatch):
    model = nn.Sequential(nn.Linear(600, 500), nn.Linear(500, 2))
    found = account(model, Masking("random", seed=3), head="1")
    assert found.reached == PATH.capacities
    with Submodels(model, PATH, Masking("random", seed=3), head="1") as submodels:
        for k in range(4):
            submodels.at(k)
            share = float((model[0].weight != 0).float().mean())
            assert abs(share - found.reached[k]) < 0.004


def test_dropout_masks_nothing_and_says_so():
    found = account(weights_of(None), Masking("dropout"))
    assert (found.reached, found.masked, found.warning()) == (None, 0, None)
    assert "100.0% of 4,200 matrix weights can be masked; none is, as dropout" in found.line()


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_real_networks_can_be_masked_nearly_whole(name):
    model = timm.create_model(name, pretrained=False, num_classes=10)
    head = "fc" if name == "resnet18" else "head.fc" if "swin" in name else "head"
    masking = Masking("random")
    weights = masking.find(model, head)
    found = account_of(model, head, masking, weights, masking.masks(weights, PATH), PATH)
    assert 0.99 < found.maskable_share <= 1
    assert found.warning() is None
