"""A tiny byte-level Llama with a chat template, built in memory, and its plain scoring loop."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lc_engine.ops import philox

TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ':\n' + message['content'] + "
    "'</s>\n' }}{% endfor %}"
)


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a few merges, so that some tokens are longer than a character."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ċ", "Ċ"), ("Ġ", "t"), ("i", "n"), ("Ġ", "Ġ")]
    vocabulary = ["<s>", "</s>", *letters, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    return made


def model(tied: bool = True, **options) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {
            "vocab_size": 270,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": tied,
            "initializer_range": 0.2,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        }
        config = LlamaConfig(**(settings | options))
        return LlamaForCausalLM(config).eval()


class PlainLoop:
    """A row at a time, full logits, `log_softmax`, a forward per sub-model; nothing is shared.

    Args:
        model: any Llama; its weights are masked in place and restored.
        capacities: of the sub-models.
        kind: "magnitude" per layer or over all, "random", or "dropout".
        scope: of magnitude masks.
        which: "body", "head" or "all". A masked head is untied from the embedding.
        seed: of random masks and dropout.
    """

    def __init__(self, model, capacities, kind="magnitude", scope="layer", which="body", seed=0):
        self.model = model
        self.capacities = capacities
        self.kind, self.scope, self.which, self.seed = kind, scope, which, seed
        self.head = model.lm_head.weight.detach().clone()
        self.body = [
            module.weight.detach()
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name != "lm_head"
        ]
        self.pristine = [weight.clone() for weight in self.body]

    def nll(self, rows) -> torch.Tensor:
        """Mean NLL (K, M) of the response tokens of rows (ids, response)."""
        found = []
        for capacity in self.capacities:
            head = self._make(capacity)
            with torch.no_grad():
                found.append(
                    [self._row(np.asarray(ids), response, head) for ids, response, *_ in rows]
                )
            self._restore()
        return torch.tensor(found, dtype=torch.float64)

    def _row(self, ids, response, head) -> float:
        ids = torch.from_numpy(ids)
        hidden = self.model.model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        log_p = torch.log_softmax(hidden @ head.T, dim=-1)
        chosen = [float(log_p[t - 1, ids[t]]) for t in range(1, len(ids)) if response[t]]
        return -float(np.mean(chosen))

    def _make(self, capacity: float) -> torch.Tensor:
        if self.kind == "dropout":
            self._hook(capacity)
            return self.head
        chosen = {"body": self.pristine, "head": [self.head], "all": [*self.pristine, self.head]}
        weights = chosen[self.which]
        if self.kind == "random":
            scores = [
                philox.uniform(tuple(w.shape), self.seed, stream)
                for stream, w in enumerate(weights)
            ]
            bounds = [1 - capacity] * len(weights)
        else:
            scores = [w.abs() for w in weights]
            every = torch.cat([s.flatten() for s in scores])
            pools = [every] * len(scores) if self.scope == "global" else scores
            bounds = [_bound(pool.flatten(), capacity) for pool in pools]
        masked = [
            torch.where(s >= b, w, 0) for w, s, b in zip(weights, scores, bounds, strict=True)
        ]
        if self.which != "head":
            for live, value in zip(self.body, masked, strict=False):
                live.copy_(value)
        return self.head if self.which == "body" else masked[-1]

    def _hook(self, capacity: float) -> None:
        self.handles = []
        branches = [b for layer in self.model.model.layers for b in (layer.self_attn, layer.mlp)]
        for stream, branch in enumerate(branches):

            def drop(_, __, output, stream=stream):
                value = output[0] if isinstance(output, tuple) else output
                drawn = philox.uniform(tuple(value.shape[1:]), self.seed, stream)
                value = torch.where(drawn.double() >= 1 - capacity, value / capacity, 0)
                return (value, *output[1:]) if isinstance(output, tuple) else value

            self.handles.append(branch.register_forward_hook(drop))

    def _restore(self) -> None:
        for live, whole in zip(self.body, self.pristine, strict=True):
            live.copy_(whole)
        for handle in self.__dict__.pop("handles", []):
            handle.remove()


def _bound(scores: torch.Tensor, capacity: float) -> float:
    keep = round(capacity * len(scores))
    return float(np.partition(scores.numpy(), -keep)[-keep]) if keep else float("inf")


def random_rows(generator: np.random.Generator, count: int) -> list[dict]:
    """Alpaca rows of random lengths and letters, some with the same beginning."""
    letters = list("hello in the 0123\n é漢 xyz")

    def text(low: int, high: int) -> str:
        return "".join(generator.choice(letters, size=generator.integers(low, high)))

    return [
        {
            "instruction": ("hello, tell me: " if generator.random() < 0.7 else "") + text(0, 30),
            "input": text(0, 10) if generator.random() < 0.4 else "",
            "output": "a" + text(0, 40),
        }
        for _ in range(count)
    ]
