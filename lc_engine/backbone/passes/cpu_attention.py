"""Attention of a working copy: torch's calls for it run through `ops.attention` where they may.

Models ask for attention by `torch.nn.functional.scaled_dot_product_attention`, those of timm and
Hugging Face among them, or hold `torch.nn.MultiheadAttention`: to step in there serves them all.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from lc_engine import ops
from lc_engine.backbone.trace import Calls
from lc_engine.ops import contract

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Context = AbstractContextManager[Any]

_DTYPES = (torch.float32, torch.bfloat16)


def fast_attention(forward: Callable[[], Any], device: torch.device) -> Callable[[], Context]:
    """Run a model's forward, and give the context that its other forwards are best run in.

    Every call of torch costs a little more in such a context: a model without attention gets an
    empty one.
    """
    core = contract.native()
    # The baseline, without a vector's FMA, is slower than torch.
    if device.type != "cpu" or core is None or core.cpu_isa() == "baseline":
        forward()
        return nullcontext
    with _Seen() as seen:
        forward()
    return FastAttention if seen.attention else nullcontext


class _Seen(Calls):
    """Sees whether attention is asked for, while it is entered."""

    attention = False

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.attention |= func in _OURS
        return func(*args, **kwargs)


class FastAttention(Calls):
    """Runs attention in float32 or bfloat16 on a CPU through `ops.attention`, while it is entered.

    Calls with a mask, with dropout, causal ones and those that a gradient goes through are torch's.
    """

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run attention through the operator where it may, and all else as it is."""
        if func in _OURS:
            found = _OURS[func](*args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)


def _scaled_dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        return None
    if not (_plain(query, key, value) and (scale is None or scale > 0)):
        return None
    fits = (
        query.dim() >= 3
        and query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
        and query.shape[-1] == key.shape[-1] > 0
        and key.shape[-2] == value.shape[-2] > 0
    )
    return ops.attention(query, key, value, scale) if fits else None


def _multi_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    **others: Any,
) -> tuple[Tensor, None] | None:
    """Run self-attention of (tokens, batch, dims).

    The module's own fast path is closed while any mode is entered, so this is not left to torch.
    """
    if query is not key or key is not value or query.dim() != 3 or not len(query):
        return None
    given = (bias_k, bias_v, key_padding_mask, attn_mask, others.get("static_k"))
    if need_weights or use_separate_proj_weight or add_zero_attn or in_proj_weight is None:
        return None
    if any(one is not None for one in given) or others.get("is_causal") or (training and dropout_p):
        return None
    if not _plain(query, in_proj_weight, out_proj_weight):
        return None
    heads = functional.linear(query, in_proj_weight, in_proj_bias)
    q, k, v = heads.view(*query.shape[:2], 3, num_heads, -1).permute(2, 1, 3, 0, 4)
    mixed = ops.attention(q, k, v).permute(2, 0, 1, 3).flatten(2)
    return functional.linear(mixed, out_proj_weight, out_proj_bias), None


def _plain(*tensors: Tensor) -> bool:
    """Tell whether tensors are of one dtype that our attention is faster in, without gradients."""
    dtype, tracked = tensors[0].dtype, torch.is_grad_enabled()
    return dtype in _DTYPES and all(
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.dtype == dtype
        and tensor.is_cpu
        and not (tracked and tensor.requires_grad)
        for tensor in tensors
    )


_OURS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.scaled_dot_product_attention: _scaled_dot_product,
    functional.multi_head_attention_forward: _multi_head,
}
