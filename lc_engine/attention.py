"""Attention of a working copy: torch's calls for it run through `ops.attention` where they may.

Models ask for attention by `torch.nn.functional.scaled_dot_product_attention`, timm's and those of
Hugging Face among them, so one place to step in serves them all.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lc_engine.ops import contract
from lc_engine.ops.attention import run

if TYPE_CHECKING:
    from collections.abc import Callable


def fast_attention(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Give the context in which a copy in that dtype is run."""
    if device.type == "cpu" and dtype == torch.bfloat16 and contract.native() is not None:
        return FastAttention()
    return nullcontext()


class FastAttention(TorchFunctionMode):
    """Runs attention in bfloat16 on a CPU through `ops.attention`, while it is entered.

    Calls with a mask, with dropout, causal ones and those that a gradient goes through are torch's.
    """

    def __torch_function__(  # noqa: D102 - torch calls it
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and _fits(*args, **kwargs):
            return _run(*args, **kwargs)
        return func(*args, **kwargs)


def _run(query: Tensor, key: Tensor, value: Tensor, *_: Any, scale: float | None = None, **__: Any) -> Tensor:
    return run(query, key, value, scale)


def _fits(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        return False
    if scale is not None and not scale > 0:
        return False
    for tensor in (query, key, value):
        if type(tensor) is not Tensor or tensor.dtype != torch.bfloat16 or not tensor.is_cpu:
            return False
        if torch.is_grad_enabled() and tensor.requires_grad:
            return False
    return (
        query.dim() >= 3
        and query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
        and query.shape[-1] == key.shape[-1] > 0
        and key.shape[-2] == value.shape[-2] > 0
    )
