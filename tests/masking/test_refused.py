"""What would be masked by numbers that are not its weights is refused by name."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

import lc_engine as lc
from lc_engine.masking.masking import Masking


class Packed(nn.Module):
    """A linear layer that keeps its weight in bytes, as GGUF, GPTQ and BitNet do."""

    def __init__(self, key, dtype, as_buffer):
        super().__init__()
        stored = torch.zeros(4, 4, dtype=dtype)
        if as_buffer:
            self.register_buffer(key, stored)
        else:
            setattr(self, key, nn.Parameter(stored, requires_grad=False))


class FP8Linear(nn.Linear):
    """A linear layer in float8 with a scale beside it, as `transformers` has."""

    def __init__(self):
        super().__init__(4, 4, bias=False)
        self.weight = nn.Parameter(self.weight.to(torch.float8_e4m3fn), requires_grad=False)
        self.weight_scale_inv = nn.Parameter(torch.ones(1, 1), requires_grad=False)


MODULES = [
    (lambda: Packed("weight", torch.uint8, False), r'"0\.weight" is packed \(uint8 in a Packed\)'),
    (lambda: Packed("qweight", torch.int32, True), r'"0\.qweight" is packed \(int32'),
    (lambda: Packed("weight_packed", torch.int32, True), r'"0\.weight_packed" is packed'),
    (FP8Linear, r'"0\.weight" is packed \(float8_e4m3fn in a FP8Linear\)'),
]


@pytest.mark.parametrize(("make", "message"), MODULES)
def test_a_packed_weight_is_refused_by_name(make, message):
    model = nn.Sequential(make(), nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=message):
        Masking().find(model, "2")
    with pytest.raises(ValueError, match=message):
        lc.Scorer(model).describe()
    # A head that is masked by itself does not see the body's weights.
    assert list(Masking(weights="head").find(model, "2")) == ["2.weight"]


def test_tables_that_are_no_weights_of_a_product_are_let_be():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.register_buffer("position_ids", torch.zeros(1, 9, dtype=torch.int64))
    model.register_buffer("attention_mask", torch.zeros(9, 9, dtype=torch.bool))
    assert list(Masking().find(model, "1")) == ["0.weight"]


class Adapter(nn.Module):
    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(4, 4)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})


Adapter.__module__ = "peft.tuners.lora.layer"


def test_an_adapter_is_refused_by_name():
    model = nn.Sequential(Adapter(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r'module "0" is an adapter of peft .*merge_and_unload'):
        lc.Scorer(model).describe()


# peft asks transformers for a name that is deprecated.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_a_model_of_peft_is_refused_and_its_merge_is_scored():
    import peft

    from helpers import tiny_language_model as tiny

    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(tiny.model(), config)
    scorer = lc.Scorer.for_causal_lm(adapted, tiny.tokenizer())
    with pytest.raises(ValueError, match="is an adapter of peft"):
        scorer.describe()
    merged = lc.Scorer.for_causal_lm(adapted.merge_and_unload(), tiny.tokenizer())
    assert "head" in merged.describe()
