"""Layers of the user's own classes: which multiply by the weight that they hold."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional
from transformers.models.falcon.modeling_falcon import FalconLinear

from lc_engine.masking import Masking


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / weight.std((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class StandardizedInside(nn.Conv1d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, functional.normalize(weight, dim=1), bias)


class Cosine(nn.Linear):
    def forward(self, x):
        return functional.linear(functional.normalize(x), functional.normalize(self.weight))


class Ternary(nn.Linear):
    def forward(self, x):
        step = self.weight.abs().mean()
        return x @ ((self.weight / step).round().clamp(-1, 1) * step).T


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.relu(functional.linear(x, self.weight.bfloat16().float(), self.bias))


class Equalized(nn.Linear):
    def forward(self, x):
        return torch.matmul(x, (self.weight * self.in_features**-0.5).t())


class Decoupled(nn.Linear):
    def forward(self, x, more):
        return functional.linear(x, self.weight, self.bias) + more


def zeros(layer):
    nn.init.zeros_(layer.weight)
    return layer


def chosen(layer):
    return list(Masking().find(nn.ModuleList([layer]), None))


@pytest.mark.parametrize(
    "layer",
    [
        Standardized(3, 8, 3), Standardized(3, 8, 3).bfloat16(), StandardizedInside(4, 8, 3),
        Cosine(8, 8), Ternary(8, 16),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_a_layer_that_computes_its_weight_is_refused_by_name(layer):
    kind = type(layer).__name__
    with pytest.raises(ValueError, match=rf'"0.weight" is .* at every forward \({kind}\)'):
        chosen(layer)


@pytest.mark.parametrize(
    "layer",
    [
        Counting(8, 2), Equalized(6, 8), Equalized(8, 8), Decoupled(8, 8),
        FalconLinear(8, 8), FalconLinear(8, 6),
        timm.layers.Conv2dSame(4, 6, 3, stride=2, groups=2), timm.layers.linear.Linear(8, 4),
        zeros(FalconLinear(8, 6)), zeros(Equalized(6, 8)),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_a_layer_that_multiplies_by_its_weight_is_masked(layer):
    before = torch.random.get_rng_state()
    assert chosen(layer) == ["0.weight"]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert layer.training
    assert getattr(layer, "calls", 0) == 0
