"""The last layers compute only the token that the classifier sees."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

import lc_engine as lc
from lc_engine import ops
from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import class_token
from lc_engine.backbone.passes.class_token import on_first_token
from lc_engine.models.classifier import Tap
from lc_engine.ops import contract
from lc_engine.scorer.prepared import Prepared
from lc_engine.submodels import Submodels

PATH = lc.LearningPath.explicit([1.0, 0.6, 0.3])


class Tokens(nn.Module):
    """Two linear layers over tokens, with variants before the classifier."""

    def __init__(self, seen: str) -> None:
        super().__init__()
        self.seen = seen
        self.one, self.two, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.one(x)
        if self.seen == "mixed":
            y = y + y.mean(1, keepdim=True)
        z = y + self.two(y).relu()
        if self.seen == "mean":
            return self.head(z.mean(1))
        if self.seen == "largest":
            return self.head(z.amax(1))
        if self.seen == "last":
            return self.head(z[:, -1])
        if self.seen == "twice":
            return self.head(self.two(z)[:, 0])
        return self.head(z[:, 0])


@pytest.mark.parametrize(
    ("seen", "names"),
    [
        ("first", ["two", "one"]),
        ("mixed", ["two"]),
        ("mean", []),
        ("largest", []),
        ("last", []),
        ("twice", []),
    ],
)
def test_the_last_layers_whose_other_tokens_are_not_seen(seen: str, names: list[str]) -> None:
    torch.manual_seed(0)
    model, x = Tokens(seen).eval(), torch.randn(4, 5, 6)
    with torch.no_grad():
        want = model(x)
    rewritten = ModelCopy(model, x[:2], masked=[model.one, model.two], classifier="head")
    assert class_token.apply(rewritten) == bool(names)
    found = rewritten.first_token
    assert [name for name, module in model.named_modules() if module in found] == names[::-1]
    rows: list[tuple[int, ...]] = []
    for layer in found:
        inner = layer.forward
        layer.forward = lambda y, inner=inner: rows.append(tuple(y.shape)) or inner(y)
        layer.forward = on_first_token(layer.forward)
    with torch.no_grad():
        torch.testing.assert_close(model(x), want)
    assert rows == [(4, 1, 6)] * len(names)


def test_a_model_with_hooks_or_one_token_stays() -> None:
    torch.manual_seed(0)
    model = Tokens("first").eval()
    layers = [model.one, model.two]
    assert not class_token.apply(ModelCopy(model, torch.randn(2, 1, 6), masked=layers))
    model.one.register_forward_hook(lambda *_: None)
    assert not class_token.apply(ModelCopy(model, torch.randn(2, 5, 6), masked=layers))


class Attending(nn.Module):
    """Attention and a linear layer, with variants."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inner = kind, nn.Identity()
        self.out, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.inner(x).unsqueeze(1)  # of one head
        y = functional.scaled_dot_product_attention(x, x, x, is_causal=self.kind == "causal")
        if self.kind == "twice":
            y = functional.scaled_dot_product_attention(y, y, y)
        y = self.out(y[:, 0])
        return self.head(y.mean(1) if self.kind == "mean" else y[:, 0])


@pytest.mark.parametrize(
    ("kind", "found"), [("first", True), ("causal", True), ("mean", False), ("twice", False)]
)
def test_attention_of_the_first_token(kind: str, found: bool) -> None:
    torch.manual_seed(0)
    inner, x = Attending(kind).eval(), torch.randn(3, 5, 6)
    model = nn.Sequential(nn.Linear(6, 6), inner)
    with torch.no_grad():
        want = model(x)
        rewritten = ModelCopy(model, x[:2], masked=[model[0], inner.out])
        assert class_token.apply(rewritten) == (kind != "mean")
        assert ("forward" in vars(inner)) == found
        torch.testing.assert_close(model(x), want)


@pytest.mark.parametrize(("pool", "fewer"), [("token", True), ("avg", False)])
def test_a_transformer_gives_the_same_features(
    monkeypatch: pytest.MonkeyPatch, pool: str, fewer: bool
) -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=3, num_classes=7, global_pool=pool
    ).eval()
    x, tap, masking = torch.randn(6, 3, 64, 64), Tap(model), lc.Masking()
    want = []
    with torch.inference_mode():
        with Submodels(model, PATH, masking) as submodels:
            for k in range(len(PATH)):
                submodels.at(k)
                want.append(tap.features(x))
        copy = Prepared(model, "auto", masking, PATH).views(x, torch.float32)
        tokens: list[Tensor] = []
        last = copy.tap.model.blocks[-1]
        for module in (last.mlp.fc2, last.attn.proj):
            module.register_forward_hook(lambda _, args, out: tokens.append(out[:, 1:].any()))
        queries: list[int] = []
        real = ops.attention
        monkeypatch.setattr(
            ops, "attention", lambda q, *others: queries.append(q.shape[-2]) or real(q, *others)
        )
        found = copy.features(x, range(3))
    torch.testing.assert_close(found, torch.stack(want), rtol=1e-4, atol=1e-4)
    assert {bool(some) for some in tokens} == {not fewer}
    if contract.native() is not None and contract.native().cpu_isa() != "baseline":
        assert queries == [17, 17, 1 if fewer else 17] * 3
