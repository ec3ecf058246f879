"""LoRA in the last layers of a causal language model; below them states are computed once a row."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from lc_engine.language.tokens import Tokens

UPPER, RANK, BATCH, RATE, WARM_UP = 2, 8, 8, 1e-3, 4


class Lora(nn.Module):
    """A frozen linear map and a trained one of low rank beside it."""

    def __init__(self, base: nn.Linear, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        down = torch.randn(RANK, base.in_features, generator=generator)
        self.down = nn.Parameter(down / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        return self.base(x) + 2 * (x @ self.down.to(dtype).T) @ self.up.to(dtype).T


class Halves:
    """A model cut below its last layers, whose inputs are computed once for every row."""

    def __init__(self, model: Any) -> None:
        self.head, self.embed = model.lm_head, model.model.embed_tokens
        layers = model.model.layers
        self.body = model.model
        self.layers, self.norm = layers[len(layers) - UPPER :], model.model.norm
        self.lower = self.with_layers(layers[: len(layers) - UPPER], nn.Identity())

    def with_layers(self, layers: Any, norm: nn.Module) -> Any:
        """Return the body with other layers."""
        made = copy.copy(self.body)
        made._modules = dict(self.body._modules) | {"layers": layers, "norm": norm}
        return made

    @torch.inference_mode()
    def states(self, rows: list[Tokens]) -> list[Tensor]:
        """Return the hidden states (T, D) of each row at the cut."""
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        for part in (order[start : start + 16] for start in range(0, len(order), 16)):
            ids = [torch.from_numpy(rows[i].ids) for i in part]
            padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
            hidden = self.lower(input_ids=padded, use_cache=False)[0]
            for i, one in zip(part, hidden, strict=True):
                found[i] = one[: len(rows[i].ids)].clone()
        return found

    def adapted(self, seed: int) -> Any:
        """Return the last layers with fresh adapters."""
        generator = torch.Generator().manual_seed(seed)
        layers = copy.deepcopy(self.layers)
        layers.requires_grad_(False)
        for module in list(layers.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, Lora(child, generator))
        return self.with_layers(layers, self.norm)

    def loss(self, upper: Any, states: list[Tensor], rows: list[Tokens]) -> tuple[Tensor, int]:
        """Return the summed NLL of the response tokens, and their number; padding comes last."""
        inputs = nn.utils.rnn.pad_sequence(states, batch_first=True)
        hidden = upper(inputs_embeds=inputs, use_cache=False)[0]
        wanted = [h[np.flatnonzero(r.response) - 1] for h, r in zip(hidden, rows, strict=True)]
        targets = torch.cat([torch.from_numpy(row.ids[row.response]) for row in rows])
        logits = self.head(torch.cat(wanted)).float()
        return cross_entropy(logits, targets, reduction="sum"), len(targets)

    def train(self, states: list[Tensor], rows: list[Tokens], seed: int, steps: int) -> Any:
        """Return the last layers, trained on rows."""
        upper, rng = self.adapted(seed), np.random.default_rng(seed)
        weights = [one for one in upper.layers.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / WARM_UP) * (1 - step / steps)
        )
        order: list[int] = []
        for _ in range(steps):
            while len(order) < BATCH:
                order += rng.permutation(len(rows)).tolist()
            now, order = order[:BATCH], order[BATCH:]
            total, count = self.loss(upper, [states[i] for i in now], [rows[i] for i in now])
            (total / count).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return upper

    @torch.inference_mode()
    def nll(self, upper: Any, states: list[Tensor], rows: list[Tokens]) -> float:
        """Return the mean NLL of all response tokens in nats."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        found = [
            self.loss(upper, [states[i] for i in part], [rows[i] for i in part])
            for part in (order[start : start + 16] for start in range(0, len(order), 16))
        ]
        return float(sum(total for total, _ in found)) / sum(count for _, count in found)
