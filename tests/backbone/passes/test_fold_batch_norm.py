"""Batch norms after a convolution are folded into it, or stay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from helpers.networks import state
from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import fold_batch_norm


@pytest.mark.parametrize(("name", "norms"), [("lite0", 49), ("resnet18", 20)])
def test_every_batch_norm_after_a_convolution_is_folded(models, images, name, norms):
    model, inputs = copy.deepcopy(models[name]), images[0][:2]
    with torch.no_grad():
        want = model(inputs)
        rewritten = ModelCopy(model, inputs)
        assert fold_batch_norm.apply(rewritten)
        assert len(rewritten.factors) == norms
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        torch.testing.assert_close(model(inputs), want, rtol=1e-4, atol=1e-4)
        for weight, factor in rewritten.factors.items():
            unfolded = models[name].get_parameter(weight)
            assert torch.equal(model.get_parameter(weight), unfolded * factor)


class UsesTwice(nn.Module):
    """Its convolution's output enters the norm and bypasses it, where no hook sees it."""

    def __init__(self, asks: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_var.fill_(9.0)
        self.asks = asks

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + (self.norm.eps if self.asks else y)


@pytest.mark.parametrize("asks", [False, True])
def test_a_norm_that_cannot_be_folded_is_put_back(asks):
    model = UsesTwice(asks).eval()
    before, x = state(model), torch.randn(2, 3, 4, 4)
    want = model(x)
    rewritten = ModelCopy(model, x)
    assert not fold_batch_norm.apply(rewritten)
    assert rewritten.factors == {}
    assert state(model) == before
    assert torch.equal(model(x), want)


class SharesAWeight(nn.Module):
    """Two convolutions with one weight, each before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.two.weight = self.one.weight
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.first.running_var.fill_(9.0)
        self.second.running_var.fill_(0.3)

    def forward(self, x):
        return self.second(self.two(self.first(self.one(x))))


def test_norms_after_a_shared_weight_are_put_back():
    model = SharesAWeight().eval()
    before, x = state(model), torch.randn(2, 3, 4, 4)
    assert not fold_batch_norm.apply(ModelCopy(model, x))
    assert state(model) == before
