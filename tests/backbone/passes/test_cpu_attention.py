"""Calls of attention run through `ops.attention` where they fit."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from lc_engine import ops
from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import PASSES, cpu_attention
from lc_engine.backbone.passes.cpu_attention import FastAttention
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO
from lc_engine.ops import contract
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared

pytestmark = pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the queries that ran through `ops.attention`."""
    found, real = [], ops.attention

    def counted(query, *others, **options):
        found.append(tuple(query.shape))
        return real(query, *others, **options)

    monkeypatch.setattr(ops, "attention", counted)
    return found


@pytest.fixture
def vector_core(monkeypatch):
    """Uses `ops.attention` with the baseline too, which leaves it to torch."""

    def apply(copy):
        copy.attention = FastAttention
        return True

    monkeypatch.setitem(PASSES, "cpu_attention", apply)


def close(found, wanted, dtype):
    rough = 2e-2 if dtype == torch.bfloat16 else 1e-5
    scale = wanted.abs().max().item()
    torch.testing.assert_close(found, wanted, rtol=rough, atol=rough * scale)


@pytest.mark.usefixtures("vector_core")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_vit_as_with_torch_s_attention(calls, dtype):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10, depth=3).eval()
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        path = LearningPath.explicit([1.0, 0.9])
        found = Prepared(model, AUTO, Masking(), path).views(x, dtype).logits(x, [0])[0]
        assert calls == [(3, 3, 17, 64)] * 3
        close(found, model.to(dtype)(x.to(dtype)), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention(calls, dtype, batch_first):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(60, 3, batch_first=batch_first).eval().to(dtype)
    x = torch.randn(2, 17, 60).to(dtype)
    mask = torch.ones(17, 17).triu(1).bool() if batch_first else torch.eye(2).bool()
    with torch.inference_mode():
        wanted, _ = module(x, x, x, need_weights=False)
        with FastAttention():
            found, weights = module(x, x, x, need_weights=False)
            assert calls == [(2, 3, 17, 20) if batch_first else (17, 3, 2, 20)]
            assert weights is None
            # Other calls are torch's.
            others = [
                module(x, x, x)[0],
                module(x, x + 1, x, need_weights=False)[0],
                module(x, x, x, need_weights=False, attn_mask=mask)[0],
            ]
        assert len(calls) == 1
        close(found, wanted, dtype)
        close(others[0], wanted, dtype)
        close(others[1], module(x, x + 1, x, need_weights=False)[0], dtype)
        close(others[2], module(x, x, x, need_weights=False, attn_mask=mask)[0], dtype)


def test_transformer_encoder(calls):
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, batch_first=True), 2).eval()
    x = torch.randn(2, 9, 32)
    with torch.inference_mode():
        wanted = model(x)
        with FastAttention():
            close(model(x), wanted, torch.float32)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"attn_mask": torch.zeros(5, 5)},
        {"attn_mask": torch.ones(5, 5).tril().bool() | torch.eye(5).roll(1, 1).bool()},
        {"attn_mask": torch.stack([torch.ones(5, 5).tril(), torch.ones(5, 5)]).bool()[:, None]},
        {"is_causal": True, "query": torch.ones(2, 2, 3, 8)},
        {"dropout_p": 0.5},
        {"scale": -1.0},
        {"key": torch.ones(1, 2, 5, 8)},  # spread over the batch
        {"query": torch.ones(5, 8), "key": torch.ones(5, 8), "value": torch.ones(5, 8)},
    ],
    ids=[
        "mask",
        "other order",
        "two orders",
        "first keys",
        "dropout",
        "negative scale",
        "broadcast",
        "no heads",
    ],
)
def test_other_calls_are_torch_s(calls, change):
    torch.manual_seed(0)
    given = {name: torch.randn(2, 2, 5, 8) for name in ("query", "key", "value")} | change
    torch.manual_seed(1)
    wanted = functional.scaled_dot_product_attention(**given)
    torch.manual_seed(1)
    with FastAttention():
        found = functional.scaled_dot_product_attention(**given)
    assert torch.equal(found, wanted)
    assert not calls


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["is_causal", "mask", "mask of a batch", "grouped"])
def test_causal_order(calls, dtype, form):
    torch.manual_seed(0)
    queries = 9 if form in ("is_causal", "grouped") else 6
    q, k, v = (torch.randn(2, 4, tokens, 8).to(dtype) for tokens in (queries, 9, 9))
    mask = torch.ones(6, 9).tril(3).bool()[None, None]
    options = {
        "is_causal": {"is_causal": True},
        "mask": {"attn_mask": mask},
        "mask of a batch": {"attn_mask": mask.expand(2, 4, -1, -1)},
        "grouped": {"is_causal": True, "enable_gqa": True},
    }[form]
    if form == "grouped":
        k, v = k[:, :2], v[:, 2:]
    with torch.inference_mode():
        wanted = functional.scaled_dot_product_attention(q, k, v, **options)
        with FastAttention():
            for _ in range(2):
                close(functional.scaled_dot_product_attention(q, k, v, **options), wanted, dtype)
    assert calls == [(2, 4, queries, 8)] * 2


def padding(lengths, tokens):
    """The mask (N, 1, 1, tokens) of rows of some lengths."""
    return (torch.arange(tokens) < torch.tensor(lengths)[:, None])[:, None, None]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spread", [True, False], ids=["a view", "in memory"])
def test_padding_at_the_ends_of_rows(calls, dtype, spread):
    torch.manual_seed(0)
    q, k, v = (torch.randn(6, 7, 4, 8).transpose(1, 2).to(dtype) for _ in range(3))
    mask = padding([7, 7, 3, 5, 5, 1], 7).expand(-1, -1, 7, -1)
    mask = mask if spread else mask.contiguous()
    with torch.inference_mode():
        wanted = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.5)
        with FastAttention():
            found = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.5)
    close(found, wanted, dtype)
    assert found.transpose(1, 2).is_contiguous()
    assert calls == [(2, 4, 7, 8), (1, 4, 7, 8), (2, 4, 7, 8), (1, 4, 7, 8)]


@pytest.mark.parametrize("kind", ["at the front", "a hole", "no key", "per head", "per query"])
def test_other_masks_of_keys_are_torch_s(calls, kind):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 5, 8) for _ in range(3))
    mask = padding([5, 3], 5).expand(-1, -1, 5, -1).clone()
    if kind == "at the front":
        mask = mask.flip(3)
    elif kind == "a hole":
        mask[0, :, :, 1] = False
    elif kind == "no key":
        mask[1] = False
    elif kind == "per head":
        mask = torch.cat([mask, mask.flip(0)], 1)
    else:
        mask[0, :, 2, 4] = False
    wanted = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with FastAttention():
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    assert not calls


def test_other_dtypes_and_gradients_are_torch_s(calls):
    with FastAttention():
        q = torch.randn(1, 2, 5, 8)
        functional.scaled_dot_product_attention(q.double(), q.double(), q.double())
        q.requires_grad_()
        functional.scaled_dot_product_attention(q, q, q).sum().backward()
        assert not calls
        assert q.grad is not None
        with torch.no_grad():
            functional.scaled_dot_product_attention(q, q, q)
    assert len(calls) == 1


def test_where_it_is_entered(monkeypatch):
    class Core:
        isa = "avx2"

        def cpu_isa(self):
            return self.isa

    ran = []

    class Net(nn.Module):
        def __init__(self, attends):
            super().__init__()
            self.attends = attends

        def forward(self, x):
            ran.append(x)
            return functional.scaled_dot_product_attention(x, x, x) if self.attends else x

    def context(device="cpu", attends=True):
        rewritten = ModelCopy(Net(attends), torch.ones(2, 3, 4, 8, device=device))
        found = cpu_attention.apply(rewritten)
        assert found == (rewritten.attention is FastAttention)
        return rewritten.attention

    monkeypatch.setattr(contract, "native", Core)
    assert context() is FastAttention
    assert context(attends=False) is nullcontext
    assert context("meta") is nullcontext
    monkeypatch.setattr(Core, "isa", "baseline")
    assert context() is nullcontext
    monkeypatch.setattr(contract, "native", lambda: None)
    assert context() is nullcontext
    assert len(ran) == 5


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x)[0]


def test_attention_of_torch_s_modules_is_seen():
    layer = nn.TransformerEncoderLayer(16, 2, batch_first=True)
    with torch.inference_mode():
        for module in (layer, SelfAttention()):
            rewritten = ModelCopy(module.eval(), torch.randn(2, 5, 16))
            vectors = contract.native().cpu_isa() != "baseline"
            assert cpu_attention.apply(rewritten) == vectors
            assert rewritten.attention is (FastAttention if vectors else nullcontext)
