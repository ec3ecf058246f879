"""The reference: learning complexity as the paper's formulas read, one masked model at a time."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from lc_engine.ops import philox


class PlainLoop:
    """Scores by `torch.where(s ≥ t)`, a forward per sub-model, and the mean; nothing is shared.

    Masked weights go through `functional_call`, so the model is never written to.
    """

    def __init__(self, model: nn.Module, head: str) -> None:
        self.model = model
        self.step: float | None = None  # of a geometric path
        self.head = head
        self.weights = {n: p.detach() for n, p in model.named_parameters()}
        self.maskable = [
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        ]

    def masked(self, capacities, *, kind, scope, which, seed=0, saliency=None):
        """Yield the weights of each sub-model by name."""
        head = f"{self.head}.weight"
        names = {
            "body": [n for n in self.maskable if n != head],
            "head": [head],
            "all": self.maskable,
        }[which]
        scores = {
            "magnitude": lambda: [self.weights[n].abs() for n in names],
            "random": lambda: [
                _uniform(self.weights[n].shape, seed, i) for i, n in enumerate(names)
            ],
            "given": lambda: [saliency[n] for n in names],
        }[kind]()
        if kind == "random":
            ranked: list[np.ndarray] = [np.empty(0)] * len(scores)
        elif scope == "global":
            ranked = [_descending(torch.cat([s.reshape(-1) for s in scores]))] * len(scores)
        else:
            ranked = [_descending(s.reshape(-1)) for s in scores]
        for k in range(len(capacities)):
            chosen = {}
            for name, score, order in zip(names, scores, ranked, strict=True):
                if kind == "random":
                    bound = 1 - capacities[k]
                else:
                    keep = self.keep(capacities, k, len(order))
                    bound = float(order[keep - 1]) if keep else float("inf")
                chosen[name] = torch.where(score >= bound, self.weights[name], 0)
            yield chosen

    def keep(self, capacities, k: int, numel: int) -> int:
        if self.step is None:
            return round(capacities[k] * numel)
        for _ in range(k):
            numel -= round(self.step * numel)
        return numel

    def features(self, weights, inputs):
        return functional_call(
            _Features(self.model), {f"m.{n}": w for n, w in weights.items()}, inputs
        )

    def logits(self, weights, inputs):
        return functional_call(self.model, weights, inputs)

    def linear(self, weights, inputs, labels):
        logits = self.logits(weights, inputs)
        return torch.softmax(logits.double(), 1)[torch.arange(len(labels)), labels]

    def prototypes(self, inputs, labels):
        features = self.features({}, inputs)
        return {int(c): features[labels == c].double().mean(0) for c in labels.unique()}

    def prototype(self, weights, inputs, labels, prototypes, temperature=1.0):
        features = self.features(weights, inputs).double()
        means = torch.stack(list(prototypes.values()))
        distances = (features[:, None] - means[None]).square().sum(-1).sqrt()
        p = torch.softmax(1 / distances / temperature, 1)
        column = [list(prototypes).index(int(c)) for c in labels]
        return p[torch.arange(len(labels)), column]


class _Features(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.m = model

    def forward(self, x):
        return self.m.forward_head(self.m.forward_features(x), pre_logits=True)


def _descending(scores: torch.Tensor) -> np.ndarray:
    return np.sort(scores.numpy())[::-1]


@functools.lru_cache(maxsize=256)
def _uniform(shape, seed, stream):
    return philox.uniform(tuple(shape), seed, stream)
