"""Fused mixtures of experts: each matrix of each expert is masked as a layer of its own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    DbrxConfig,
    DbrxForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.masking import Masking
from lc_engine.masking.maskable import matrix_at
from lc_engine.submodels import Submodels

FAMILIES = ["mixtral", "qwen3_moe", "gpt_oss"]
PATH = lc.LearningPath.explicit([0.8, 0.5])
EXPERTS = ("gate_up_proj", "down_proj")
COMMON = {
    "vocab_size": 270,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "num_experts_per_tok": 2,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def mixture(family, **options):
    """Four experts in each of two layers."""
    made = COMMON | options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "mixtral":
            return MixtralForCausalLM(MixtralConfig(num_local_experts=4, **made)).eval()
        if family == "qwen3_moe":
            config = Qwen3MoeConfig(num_experts=4, moe_intermediate_size=48, **made)
            return Qwen3MoeForCausalLM(config).eval()
        rope = {"rope_type": "default", "rope_theta": 10000.0}
        config = GptOssConfig(num_local_experts=4, rope_parameters=rope, **made)
        return GptOssForCausalLM(config).eval()


def keep_largest(matrix, capacity):
    """Mask a matrix in place: all but the largest weights."""
    flat = matrix.abs().flatten()
    bound = flat.sort(descending=True).values[round(capacity * len(flat)) - 1]
    matrix[matrix.abs() < bound] = 0


def masked_by_hand(model, capacity):
    """A float64 copy whose linear layers and experts, each by itself, keep the largest weights."""
    twin = copy.deepcopy(model).double()
    twin.set_experts_implementation("eager")  # a loop over the experts; the others lack float64
    with torch.no_grad():
        for name, module in twin.named_modules():
            if isinstance(module, nn.Linear) and name != "lm_head":
                keep_largest(module.weight, capacity)
            if name.endswith("mlp.experts"):
                for attribute in EXPERTS:
                    for expert in range(4):
                        keep_largest(getattr(module, attribute)[expert], capacity)
    return twin


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_agrees_with_a_loop_that_masks_by_hand(family):
    model = mixture(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = tiny.random_rows(np.random.default_rng(1), 4)
    scorer = CausalLMScorer(model, tiny.tokenizer(), path=PATH)
    table = lc.score(scorer, rows, return_path=True)
    batch = next(scorer.transform.open_source(rows).batches(len(rows)))
    for k, capacity in enumerate(PATH.capacities):
        nll = tiny.PlainLoop(masked_by_hand(model, capacity), [1.0]).nll(batch.inputs)[0]
        # Logits of about 20 in float32 carry 2e-6 of rounding, which a mean NLL inherits.
        np.testing.assert_allclose(table.column("path_log_probs")[:, k], -nll, atol=5e-5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert scorer.mask_account.maskable_share >= 0.9
    assert scorer.mask_account.reached == pytest.approx(PATH.capacities, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("kind", ["magnitude", "random", "given"])
def test_each_expert_keeps_its_count(family, scope, kind):
    model = mixture(family)
    body = {name for name, value in model.named_parameters() if value.dim() > 1}
    saliency = None
    if kind == "given":  # by the names of the parameters, as gradients have them
        generator = torch.Generator().manual_seed(5)
        saliency = {
            name: torch.rand(model.get_parameter(name).shape, generator=generator) for name in body
        }
    masking = Masking(kind, scope=scope, saliency=saliency)
    experts = [
        f"model.layers.{layer}.mlp.experts.{attribute}[{expert}]"
        for layer in range(2)
        for attribute in EXPERTS
        for expert in range(4)
    ]
    with Submodels(model, PATH, masking, head="lm_head") as submodels:
        assert set(experts) <= set(submodels.weights)
        submodels.at(1)
        weights = {name: matrix_at(model, name) for name in submodels.weights}
        kept = {name: int(torch.count_nonzero(weight)) for name, weight in weights.items()}
        sizes = {name: weight.numel() for name, weight in weights.items()}
        if kind == "random":
            # Four standard deviations of a draw.
            assert all(abs(kept[n] / sizes[n] - 0.5) < 2 / sizes[n] ** 0.5 for n in experts)
        elif scope == "layer":
            assert all(kept[n] == sizes[n] // 2 for n in experts)
        assert kind == "random" or sum(kept.values()) == sum(sizes.values()) // 2
        if saliency is not None and scope == "layer":
            one = saliency["model.layers.1.mlp.experts.down_proj"][2]
            alive = weights["model.layers.1.mlp.experts.down_proj[2]"] != 0
            assert one[alive].min() > one[~alive].max()


def test_routers_stay_whole_and_are_counted():
    model = mixture("mixtral")
    account = CausalLMScorer(model, tiny.tokenizer(), path=PATH).mask_account
    routers = 2 * 4 * 32
    assert account.matrices.total - account.matrices.maskable == routers
    assert account.matrices.largest == (
        "model.layers.0.mlp.gate.weight", "MixtralTopKRouter", "float32",
    )  # fmt: skip


def test_experts_in_a_form_that_is_not_known_are_refused_by_name():
    ffn = {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}
    config = DbrxConfig(
        d_model=32, n_heads=4, n_layers=1, max_seq_len=64, vocab_size=270, ffn_config=ffn,
        attn_config={"kv_n_heads": 2, "rope_theta": 10000.0},
    )  # fmt: skip
    model = DbrxForCausalLM(config).eval()
    message = r'"transformer.blocks.0.ffn.experts.mlp.w1" holds experts of DbrxExpertGLU as \(96, '
    with pytest.raises(ValueError, match=message):
        Masking().find(model, "lm_head")
    linear = Masking(weights=lambda name, module: isinstance(module, nn.Linear))
    assert linear.find(model, "lm_head")


def test_experts_whose_scales_are_elsewhere_are_refused_by_name():
    model = mixture("qwen3_moe")
    experts = model.model.layers[0].mlp.experts
    experts.down_proj = nn.Parameter(experts.down_proj.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(ValueError, match=r'experts.down_proj" .* torch.float8_e4m3fn.*dequantized'):
        Masking().find(model, "lm_head")
