"""Pooling: one vector per sample from a module's output, as its architecture pools.

| output | vector |
|---|---|
| (N, D) | itself |
| (N, D, H, W), a convolution's map | mean over the pixels |
| (N, H, W, D), where the model says that its maps are channels-last (Swin) | mean over the pixels |
| (N, T, D), tokens of a model that has and reads a class token | the first token |
| (N, T, D), tokens of other models | mean over the tokens that stand for the input, not padding |
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Pooling:
    """Pools a model's output, or that of a module inside it, to one vector per sample.

    Args:
        model: timm's attributes `global_pool`, `num_prefix_tokens` and `output_fmt` are followed
            where there are any, Hugging Face's `pooler_output` too; otherwise a model has a class
            token if it has a parameter named "cls_token" or "class_token".
    """

    def __init__(self, model: nn.Module) -> None:
        class_tokens = [
            name
            for name, _ in model.named_parameters()
            if name.rpartition(".")[2] in ("cls_token", "class_token")
        ]
        prefix = getattr(model, "num_prefix_tokens", None)
        self._prefix = prefix if isinstance(prefix, int) else len(class_tokens[:1])
        pool = getattr(model, "global_pool", None)
        self._takes_class_token = (
            pool == "token" if isinstance(pool, str) and self._prefix else bool(class_tokens)
        )
        form = getattr(model, "output_fmt", None)
        self._channels_last = str(getattr(form, "value", form)) == "NHWC"

    def __call__(self, output: Any, samples: int, what: str, mask: Tensor | None = None) -> Tensor:
        """Pool the output of a module.

        Args:
            output: a tensor, or an output object of Hugging Face.
            samples: N.
            what: its name in error messages.
            mask: (N, T) 0 where a token is padding; None where none is.

        Returns:
            (N, D).

        Raises:
            ValueError: the shape is none of those above.
        """
        value = first_tensor(output)
        if len(value) == samples:
            if value.dim() == 4:
                return value.mean((1, 2) if self._channels_last else (2, 3))
            if value.dim() == 3 and value.shape[1]:
                if self._takes_class_token:
                    return value[:, 0]
                if mask is not None and mask.shape == value.shape[:2]:
                    return masked_mean(value, mask)
                return self._mean_token(value)
            if value.dim() == 2:
                return value
        raise ValueError(
            f"the {what} must be one vector per sample, ({samples}, D), a map ({samples}, D, H, W) "
            f"or tokens ({samples}, T, D), got {tuple(value.shape)}: name another module with "
            "classifier="
        )

    def _mean_token(self, tokens: Tensor) -> Tensor:
        return (tokens[:, self._prefix :] if tokens.shape[1] > self._prefix else tokens).mean(1)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the means (N, D) of the tokens (N, T, D) that a mask (N, T) marks, as float32 sums."""
    counted = (mask != 0).unsqueeze(2)
    wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    total = torch.where(counted, wide, 0).sum(1)
    return (total / counted.sum(1)).to(tokens.dtype)


def first_tensor(output: Any) -> Tensor:
    """Return the tensor of a module's output.

    Raises:
        ValueError: there is none.
    """
    for name in ("logits", "pooler_output", "last_hidden_state"):
        held = getattr(output, name, None)
        if isinstance(held, Tensor):
            return held
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the model must return a tensor, or an object with logits; got {type(output).__name__}"
        )
    return output
