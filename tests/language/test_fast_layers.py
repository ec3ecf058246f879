"""Layers of a decoder run through the operators, and give what they gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine import ops
from lc_engine.backbone import tuning
from lc_engine.backbone.recognize import has_vectors
from lc_engine.language.fast_layers import FastLayers
from lc_engine.language.scorer import CausalLMScorer

pytestmark = pytest.mark.skipif(not has_vectors(), reason="the C++ core has no vectors")

SIZES = {
    "vocab_size": 270,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 1,
}


def model_of(name):
    torch.manual_seed(0)
    if name == "llama":
        return tiny.model()
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=270, n_embd=32, n_layer=2, n_head=4)).eval()
    made, config = {
        "mistral": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=5)),
        "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES)),
        "gemma2": (Gemma2ForCausalLM, Gemma2Config(**SIZES)),
    }[name]
    model = made(config).eval()
    for module in model.modules():
        if "RMSNorm" in type(module).__name__:
            nn.init.normal_(module.weight, 0.3)
    return model


@pytest.fixture
def calls(monkeypatch):
    """How often each operator ran."""
    found = {"attention": 0, "rms_norm": 0, "gated_silu": 0}

    def counted(name, real):
        def call(*args, **kwargs):
            found[name] += 1
            return real(*args, **kwargs)

        return call

    for name in found:
        monkeypatch.setattr(ops, name, counted(name, getattr(ops, name)))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "attention", "norms", "gated"),
    [
        ("llama", 2, 5, 2),
        ("mistral", 0, 5, 2),  # a window is no causal order
        ("qwen3", 2, 9, 2),
        ("gemma2", 0, 9, 0),  # soft capping; GELU
        ("gpt2", 2, 0, 0),
    ],
)
def test_models_compute_what_they_did(calls, name, attention, norms, gated, dtype):
    model = model_of(name).to(dtype)
    if name == "gemma2" and model.config._attn_implementation == "sdpa":
        attention = 2  # older transformers leave the capping out of it
    ids = torch.arange(60).view(3, 20)
    layers = FastLayers(model)
    calls.update(dict.fromkeys(calls, 0))
    with torch.inference_mode():
        wanted = model(ids, use_cache=False).logits
        assert not any(calls.values())
        with layers.in_use():
            found = model(ids, use_cache=False).logits
        assert calls == {"attention": attention, "rms_norm": norms, "gated_silu": gated}
        assert torch.equal(model(ids, use_cache=False).logits, wanted), "the modules are restored"
    rough = 3e-2 if dtype == torch.bfloat16 else 1e-5
    scale = wanted.float().abs().max()
    assert (found.float() - wanted.float()).abs().max() <= rough * scale


def test_rows_after_a_shared_prefix_see_it_all(calls):
    """Their mask is no square: 3 of 24 tokens of each row are the prefix."""
    rows = tiny.random_rows(np.random.default_rng(1), 12)
    for row in rows:
        row["instruction"] = "hello in the beginning: " + row["instruction"]
    path = lc.LearningPath.explicit([1.0, 0.6])
    scorer = CausalLMScorer(tiny.model(), tiny.tokenizer(), path=path)
    batch = next(scorer.transform.open_source(rows).batches(len(rows)))
    found = scorer.score_rows(batch).scores.log_probs
    assert scorer.usage.computed < scorer.usage.asked
    assert min(calls.values()) > 0
    wanted = tiny.PlainLoop(tiny.model(), path.capacities).nll(batch.inputs)
    np.testing.assert_allclose(-found.double(), wanted, atol=2e-5)


def test_a_norm_that_computes_something_else_is_left_alone(calls):
    class CenteredRMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(32))
            self.variance_epsilon = 1e-6

        def forward(self, x):
            x = x - x.mean(-1, keepdim=True)
            return self.weight * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()

    model = model_of("llama")
    model.model.norm = CenteredRMSNorm()
    model.model.layers[0].post_attention_layernorm.variance_epsilon = 1e-3
    layers = FastLayers(model)
    calls.update(dict.fromkeys(calls, 0))
    with torch.inference_mode(), layers.in_use():
        model(torch.arange(9).view(1, 9), use_cache=False)
    assert calls["rms_norm"] == 4


def test_a_forward_that_a_user_put_there_stays(calls):
    model, ran = model_of("llama"), []
    norm = model.model.norm
    own = norm.forward
    norm.forward = lambda x: ran.append(x) or own(x)
    put = norm.forward
    layers = FastLayers(model)
    ran.clear()
    with torch.inference_mode(), pytest.raises(IndexError), layers.in_use():
        model(torch.tensor([[270]]), use_cache=False)  # beyond the vocabulary
    with torch.inference_mode(), layers.in_use():
        model(torch.arange(9).view(1, 9), use_cache=False)
    assert len(ran) == 1
    assert norm.forward is put
    assert all("forward" not in vars(module) for module in model.modules() if module is not norm)


def test_attention_in_bfloat16_is_torch_s_where_it_multiplies_on_tiles(calls, monkeypatch):
    monkeypatch.setattr(tuning, "kind", lambda: "tiles")
    for dtype, attention in ((torch.float32, 2), (torch.bfloat16, 0)):
        model = model_of("llama").to(dtype)
        layers = FastLayers(model)
        calls.update(dict.fromkeys(calls, 0))
        with torch.inference_mode(), layers.in_use():
            model(torch.arange(9).view(1, 9), use_cache=False)
        assert calls == {"attention": attention, "rms_norm": 5, "gated_silu": 2}


def test_float64_is_left_to_the_model(calls):
    model = model_of("llama").double()
    with torch.inference_mode(), FastLayers(model).in_use():
        model(torch.arange(9).view(1, 9), use_cache=False)
    assert not any(calls.values())
