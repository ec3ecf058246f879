"""Tiny encoders of texts with seeded weights and a tokenizer of words, and their plain loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from helpers.masked_weights import largest_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import lc_engine as lc

WORDS = (
    *("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "fast", "slow", "red"),
    *("blue", "and", "is", "was", "not", "very", "##s"),
)
_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "vocab_size": 5 + len(WORDS),
    "pad_token_id": 0,
}
CONFIGS = {
    "Bert": _SIZES,
    "Roberta": _SIZES | {"bos_token_id": 1, "eos_token_id": 2, "type_vocab_size": 1},
    "DebertaV2": _SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "ModernBert": _SIZES | {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 8},
    "DistilBert": {
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": 40,
        "vocab_size": 5 + len(WORDS),
    },
}


def tokenizer(family: str = "Bert") -> Any:
    """Return a tokenizer of words with [CLS] … [SEP] … [SEP]."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    if family in ("Roberta", "ModernBert", "DistilBert"):
        names.remove("token_type_ids")
    pad, cls, sep, unk, mask = special
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=40,
        model_input_names=names,
        pad_token=pad,
        cls_token=cls,
        sep_token=sep,
        unk_token=unk,
        mask_token=mask,
    )


def make(family: str, task: str, **more: Any) -> nn.Module:
    """Return an encoder with seeded weights."""
    return seeded(family, task, CONFIGS[family] | more, larger=8)


def seeded(family: str, task: str, config: dict[str, Any], *, larger: int) -> nn.Module:
    """Return a model with seeded weights, so many times larger than fresh ones: logits differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = getattr(transformers, f"{family}Config")(**config)
        model: nn.Module = getattr(transformers, family + task)(settings).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(larger)
    return model


def save(folder: Path, family: str, task: str, **more: Any) -> str:
    """Write a model and its tokenizer to a folder, as `save_pretrained` does."""
    make(family, task, **more).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return str(folder)


def texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of 1 to 20 words."""
    rng = np.random.default_rng(seed)
    words = WORDS[:-1]
    return [" ".join(rng.choice(words, rng.integers(1, 21))) for _ in range(count)]


def plain_loop(
    model: nn.Module,
    inputs: Sequence[dict[str, list[int]]],
    path: lc.LearningPath,
    head: str | None,
    found: Callable[[Any], torch.Tensor],
) -> list[list[torch.Tensor]]:
    """Run each row alone, without padding, under each sub-model, in float64.

    Args:
        model: of which all linear layers but `head` are masked; it is not changed.
        inputs: of the rows.
        path: the capacities.
        head: name of the classifier.
        found: from the outputs to what is returned.

    Returns:
        K lists of N tensors.
    """
    import copy

    model = copy.deepcopy(model).double().eval()
    weights = {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != head
    }
    pristine = {name: weight.detach().clone() for name, weight in weights.items()}
    every = []
    with torch.no_grad():
        for masked in largest_kept(pristine, path.capacities):
            for name, weight in weights.items():
                weight.copy_(masked[name])
            every.append(
                [found(model(**{n: torch.tensor([v]) for n, v in row.items()})) for row in inputs]
            )
    return every
