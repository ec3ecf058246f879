"""Run torch's attention calls on a CPU through `ops.attention`.

Models call `torch.nn.functional.scaled_dot_product_attention`, those of timm and Hugging Face among
them, or hold `torch.nn.MultiheadAttention`: both are intercepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from lc_engine import ops
from lc_engine.backbone import tuning
from lc_engine.backbone.recognize import KERNEL_DTYPES, has_vectors
from lc_engine.backbone.trace import TorchCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.backbone.model_copy import ModelCopy


def apply(copy: ModelCopy) -> bool:
    """Set `copy.attention` to `FastAttention` if the model calls attention where that is faster.

    A context costs every torch call a little: a model without attention gets an empty one.

    Sets `copy.map_numel` too.

    Returns:
        Whether attention was set.

    Raises:
        ValueError: the model cannot take inputs of that shape.
    """
    with _Trace() as trace:
        copy.tap.run(copy.example)
    copy.map_numel = trace.map_numel
    faster = has_vectors() and copy.dtype in tuning.OWN_DTYPES[tuning.kind()]
    if trace.attention and copy.example.device.type == "cpu" and faster:
        copy.attention = FastAttention
        return True
    return False


class _Trace(TorchCalls):
    """Sees whether attention is called, and how many numbers the largest map has per image."""

    attention = False
    map_numel = 0

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.attention |= func in _REPLACEMENTS
        found = func(*args, **kwargs)
        if isinstance(found, Tensor) and found.dim() == 4 and len(found):
            self.map_numel = max(self.map_numel, found[0].numel())
        return found


class FastAttention(TorchCalls):
    """Runs attention in float32 or bfloat16 on a CPU through `ops.attention`.

    Calls with dropout, gradients or a mask that is neither causal order nor padding at the ends
    stay torch's.
    """

    def __init__(self) -> None:
        super().__init__()
        # The mask that was looked at last: all layers of a model share one.
        self._mask: Tensor | None = None
        self._is_causal = False
        self._lengths: list[tuple[slice, int]] = []

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run attention through the operator if it fits, and everything else unchanged."""
        if func in _REPLACEMENTS:
            found = _REPLACEMENTS[func](self, *args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)

    def is_causal(self, mask: Tensor) -> bool:
        """Return whether a mask (…, Q, K) lets the last query see all keys, each other one less."""
        self._look_at(mask)
        return self._is_causal

    def lengths(self, mask: Tensor) -> list[tuple[slice, int]]:
        """Return rows of equal length and their keys, of a mask of padding; else nothing."""
        self._look_at(mask)
        return self._lengths

    def _look_at(self, mask: Tensor) -> None:
        if mask is not self._mask:
            self._mask, self._is_causal = mask, _is_causal(mask)
            self._lengths = [] if self._is_causal else _lengths(mask)


def _is_causal(mask: Tensor) -> bool:
    if mask.dtype != torch.bool or mask.dim() < 2 or mask.shape[-2] > mask.shape[-1]:
        return False
    # Rows of a batch are most often views of one.
    each = mask.as_strided(
        [1 if step == 0 else size for size, step in zip(mask.shape, mask.stride(), strict=True)],
        mask.stride(),
        mask.storage_offset(),
    )
    order = mask.new_ones(mask.shape[-2:]).tril(mask.shape[-1] - mask.shape[-2])
    return each.shape[-2:] == order.shape and bool((each == order).all())


def _lengths(mask: Tensor) -> list[tuple[slice, int]]:
    """Return runs of rows of equal length, if all queries of a row see its first keys, one or more.

    Args:
        mask: (N, 1, Q, K).
    """
    if mask.dtype != torch.bool or mask.dim() != 4 or mask.shape[1] != 1 or not mask.numel():
        return []
    keys = mask[:, 0, 0]
    if mask.stride(2) and not bool((mask == keys[:, None, None]).all()):
        return []
    lengths = keys.sum(1)
    if not bool((keys == (torch.arange(keys.shape[1]) < lengths[:, None])).all()):
        return []
    found, counts = torch.unique_consecutive(lengths, return_counts=True)
    if int(found.min()) == 0:
        return []
    ends = counts.cumsum(0)
    runs = zip((ends - counts).tolist(), ends.tolist(), found.tolist(), strict=True)
    return [(slice(begin, end), length) for begin, end, length in runs]


def _padded(
    runs: list[tuple[slice, int]], q: Tensor, k: Tensor, v: Tensor, scale: float | None
) -> Tensor:
    """Return attention of rows that are padded: each run of rows sees its own keys only."""
    *leading, heads, queries, _ = q.shape
    found = q.new_empty((*leading, queries, heads, v.shape[-1])).transpose(-2, -3)
    for rows, keys in runs:
        found[rows] = ops.attention(q[rows], k[rows, :, :keys], v[rows, :, :keys], scale)
    return found


def _scaled_dot_product(
    mode: FastAttention,
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
    if dropout_p or not (_plain(query, key, value) and (scale is None or scale > 0)):
        return None
    if enable_gqa and query.dim() == key.dim() == value.dim() > 2:
        key, value = (_repeated(heads, query.shape[-3]) for heads in (key, value))
    fits = (
        query.dim() >= 3
        and query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
        and query.shape[-1] == key.shape[-1] > 0
        and key.shape[-2] == value.shape[-2] > 0
    )
    if not fits:
        return None
    if attn_mask is not None:
        square = attn_mask.shape[-2:] == (query.shape[-2], key.shape[-2])
        if is_causal or not square:
            return None
        if not mode.is_causal(attn_mask):
            runs = mode.lengths(attn_mask)
            whole = query.dim() == 4 and len(attn_mask) == len(query)
            return _padded(runs, query, key, value, scale) if runs and whole else None
    # torch's causal order begins at the first key.
    elif is_causal and query.shape[-2] != key.shape[-2]:
        return None
    return ops.attention(query, key, value, scale, causal=is_causal or attn_mask is not None)


def _repeated(heads: Tensor, count: int) -> Tensor:
    """Return (…, H, K, D) with each head as often as it takes to be `count` heads, if it can."""
    return heads.repeat_interleave(max(1, count // max(1, heads.shape[-3])), -3)


def _multi_head(
    _: FastAttention,
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

    Inside a torch function mode `nn.MultiheadAttention` does not take its own fast path.
    """
    if query is not key or key is not value or query.dim() != 3 or not len(query):
        return None
    options = (bias_k, bias_v, key_padding_mask, attn_mask, others.get("static_k"))
    if need_weights or use_separate_proj_weight or add_zero_attn or in_proj_weight is None:
        return None
    if any(option is not None for option in options) or others.get("is_causal"):
        return None
    if training and dropout_p:
        return None
    if not _plain(query, in_proj_weight, out_proj_weight):
        return None
    heads = functional.linear(query, in_proj_weight, in_proj_bias)
    q, k, v = heads.view(*query.shape[:2], 3, num_heads, -1).permute(2, 1, 3, 0, 4)
    mixed = ops.attention(q, k, v).permute(2, 0, 1, 3).flatten(2)
    return functional.linear(mixed, out_proj_weight, out_proj_bias), None


def _plain(*tensors: Tensor) -> bool:
    """Return whether tensors are plain, on the CPU, of one kernel dtype and without gradients."""
    dtype, tracked = tensors[0].dtype, torch.is_grad_enabled()
    return dtype in KERNEL_DTYPES and all(
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.dtype == dtype
        and tensor.is_cpu
        and not (tracked and tensor.requires_grad)
        for tensor in tensors
    )


_REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.scaled_dot_product_attention: _scaled_dot_product,
    functional.multi_head_attention_forward: _multi_head,
}
