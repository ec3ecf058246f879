"""Norms and linear layers are fused into the linear layer that is their only consumer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import fuse_activations, fuse_mlp


class Chain(nn.Module):
    """Two linear layers, with variants of what is between them."""

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
    rewritten = ModelCopy(model, x, layers=layers, int8=True)
    fuse_activations.apply(rewritten)
    assert fuse_mlp.apply(rewritten) == bool(found)
    names = {module: name for name, module in model.named_modules()}
    producers = rewritten.producers.items()
    assert [(names[first], names[second]) for second, first in producers] == found
    for layer, activation in rewritten.activations.items():
        layer.register_forward_hook(lambda _, __, y, activation=activation: activation(y))
    torch.testing.assert_close(model(x), want)  # the model is as it was


def test_no_chain_across_a_hook() -> None:
    model, x = Chain("plain").eval(), torch.randn(4, 5, 6)
    model.one.register_forward_hook(lambda *_: None)
    rewritten = ModelCopy(model, x, layers=[model.one, model.two], int8=True)
    assert not fuse_mlp.apply(rewritten)
    assert rewritten.producers == {}


@pytest.mark.parametrize("options", [{}, {"int8": True, "dropout": True}], ids=str)
def test_no_chain_without_int8_or_with_dropout(options: dict[str, bool]) -> None:
    model, x = Chain("plain").eval(), torch.randn(4, 5, 6)
    assert not fuse_mlp.apply(ModelCopy(model, x, layers=[model.one, model.two], **options))
