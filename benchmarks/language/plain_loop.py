"""The plain way to score conversations: what the language scorer is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lc_engine.ops import philox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lc_engine.language.tokens import Tokens
    from lc_engine.path.learning_path import LearningPath


class PlainLoop:
    """A row at a time, full logits, `log_softmax`, a forward per sub-model; nothing is shared.

    Each sub-model is made once for all rows. What is the same for all data is found here already.

    Args:
        model: a Llama; its weights are masked in place and restored.
        path: the capacities.
        kind: "magnitude", masks per layer outside the vocabulary head, or "dropout", with the
            numbers that the scorer draws at seed 0.
    """

    def __init__(self, model: nn.Module, path: LearningPath, kind: str) -> None:
        self._model = model
        self._path = path
        self._weights = [
            module.weight.detach()
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name != "lm_head" and kind == "magnitude"
        ]
        self._whole = [weight.clone() for weight in self._weights]
        self._bounds = [_bounds(weight, path) for weight in self._weights]
        layers: Any = model.get_decoder().layers if kind == "dropout" else []  # type: ignore[operator]
        self._branches = [branch for layer in layers for branch in (layer.self_attn, layer.mlp)]
        self._drawn: dict[tuple[int, int], Tensor] = {}

    def nll(self, rows: Sequence[Tokens]) -> Tensor:
        """Return the mean NLL (K, M) of the response tokens of M rows, float64 in nats."""
        found = []
        for k, capacity in enumerate(self._path.capacities):
            for weight, whole, bounds in zip(self._weights, self._whole, self._bounds, strict=True):
                weight.copy_(torch.where(whole.abs() >= bounds[k], whole, 0))
            handles = [
                branch.register_forward_hook(self._dropping(i, capacity))
                for i, branch in enumerate(self._branches)
            ]
            with torch.inference_mode():
                found.append([self._row(*row) for row in rows])
            for handle in handles:
                handle.remove()
        for weight, whole in zip(self._weights, self._whole, strict=True):
            weight.copy_(whole)
        return torch.tensor(found, dtype=torch.float64)

    def _row(self, ids: np.ndarray, response: np.ndarray) -> float:
        logits = self._model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0]
        exact = torch.promote_types(logits.dtype, torch.float32)
        log_p = torch.log_softmax(logits.to(exact), dim=-1)
        places = np.flatnonzero(response)
        return -float(log_p[places - 1, ids[places]].double().mean())

    def _dropping(self, stream: int, capacity: float) -> Callable[..., Any]:
        def drop(_: nn.Module, __: Any, output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            tokens, width = value.shape[1:]
            if (stream, tokens) not in self._drawn:
                self._drawn[stream, tokens] = philox.uniform((tokens, width), 0, stream)
            kept = self._drawn[stream, tokens].double() >= 1 - capacity
            value = torch.where(kept, value / capacity, 0)
            return (value, *output[1:]) if isinstance(output, tuple) else value

        return drop


def _bounds(weight: Tensor, path: LearningPath) -> list[float]:
    """Give, per capacity, the least |w| that stays."""
    size = weight.abs().flatten().numpy()
    counts = [round(capacity * size.size) for capacity in path.capacities]
    ordered = np.partition(size, sorted({size.size - count for count in counts}))
    return [float(ordered[size.size - count]) for count in counts]
