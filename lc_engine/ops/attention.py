"""attention: softmax(q kᵀ · scale) v over any number of heads, over all keys or in causal order.

On a CPU no matrix of scores exists: keys come in blocks into an online softmax (Milakov &
Gimelshein, arXiv 1805.02867).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, choices, contract
from lc_engine.ops.custom_op import register_shapes


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    *,
    causal: bool = False,
    backend: Literal["auto", "reference", "native"] = "auto",
) -> Tensor:
    """Return softmax(q kᵀ · scale) v.

    Args:
        q: (…, H, Q, D) float32, bfloat16, float16 or float64 (the last two: reference only).
            Views with a contiguous last dim are not copied.
        k: (…, H, K, D) in the dtype of `q`, at least one token.
        v: (…, H, K, E) in the dtype of `q`.
        scale: of the scores, positive; 1/√D if None.
        causal: whether the last query sees all keys and each query before it one key less, as the
            last Q of K tokens do; Q is at most K.
        backend: "auto" is native on a CPU (float32, bfloat16), else plain torch, "reference"; but
            bfloat16 on a CPU with AMX is torch's own attention.

    Returns:
        (…, H, Q, E) in the dtype of `q`; in memory a token's heads are contiguous. The
        sums are float32 (float64 for float64); in bfloat16 the weights are rounded, as torch does.
        A NaN in a query makes its row NaN.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    if backend not in ("auto", "reference", "native"):
        raise ValueError(f"backend must be 'auto', 'reference' or 'native', got {backend!r}")
    checks.check_kinds(q=q, k=k, v=v)
    result: Tensor = torch.ops.lc_engine.attention(q, k, v, scale, causal, backend)
    return result


def _check(q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool) -> float:
    """Check the arguments; return the scale."""
    if q.dim() < 3 or not q.is_floating_point() or q.shape[-1] == 0:
        raise ValueError(
            "q must be a floating-point tensor of shape (…, H, Q, D) with a dim, got "
            f"{q.dtype} {tuple(q.shape)}"
        )
    checks.check_tensor("k", k, (*q.shape[:-2], "K", q.shape[-1]), like=q)
    if k.shape[-2] == 0:
        raise ValueError(f"k must have a token, got shape {tuple(k.shape)}")
    checks.check_tensor("v", v, (*k.shape[:-1], "E"), like=q)
    for name, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype:
            raise ValueError(f"{name} is {tensor.dtype} but q is {q.dtype}: give both in one dtype")
    if causal and q.shape[-2] > k.shape[-2]:
        raise ValueError(
            f"causal: q must have at most the {k.shape[-2]} tokens of k, got {q.shape[-2]}"
        )
    return checked_scale(scale, q.shape[-1])


def checked_scale(scale: float | None, dims: int) -> float:
    """Return the scale of scores over that many dims, 1/√dims if None.

    Raises:
        ValueError: it is not positive and finite.
    """
    if scale is None:
        return 1 / math.sqrt(dims)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    return scale


def _reference(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    """Compute in plain torch, with a matrix of scores per head."""
    dtype = contract.compute_dtype(q.dtype)
    scores = q.to(dtype) @ k.to(dtype).transpose(-1, -2) * scale
    if causal:
        queries, keys = scores.shape[-2:]
        later = scores.new_ones((queries, keys), dtype=torch.bool).triu(keys - queries + 1)
        scores = scores.masked_fill(later, -math.inf)
    out = _empty_result(q, v)
    return out.copy_(scores.softmax(-1) @ v.to(dtype))


def _empty_result(q: Tensor, v: Tensor) -> Tensor:
    """Return an empty result in the layout of torch's own attention on a CPU."""
    *leading, heads, queries, _ = q.shape
    return q.new_empty((*leading, queries, heads, v.shape[-1])).transpose(-2, -3)


@torch.library.custom_op("lc_engine::attention", mutates_args=())
def _operator(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, backend: str
) -> Tensor:
    factor = _check(q, k, v, scale, causal)
    # There is no Triton kernel: on a GPU torch has its own.
    if backend == "auto" and q.device.type != "cpu":
        backend = "reference"
    chosen = contract.resolve_backend(
        "attention",
        backend,  # type: ignore[arg-type]
        q.device,
        q.dtype,
    )
    if choices.multiplies_on_tiles(q.dtype, q.device, backend):
        return _library(q, k, v, factor, causal)
    return (_native if chosen == "native" else _reference)(q, k, v, factor, causal)


def _library(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    """Run torch's own attention, whose causal order aligns the first tokens, not the last."""
    queries, keys = q.shape[-2], k.shape[-2]
    seen = q.new_ones((queries, keys), dtype=torch.bool).tril(keys - queries) if causal else None
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=scale)
    out = _empty_result(q, v)
    return found if found.stride() == out.stride() else out.copy_(found)


def _native(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    """Run in C++."""
    out = _empty_result(q, v)
    contract.native().attention(
        *(_four_dims(tensor) for tensor in (q, k, v)),
        scale,
        _four_dims(out),
        torch.get_num_threads(),
        causal,
    )
    return out


def _four_dims(tensor: Tensor) -> object:
    """Return a tensor as (batches, heads, tokens, dims), copied only if it must be."""
    if tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    if tensor.dim() != 4:
        tensor = tensor.unsqueeze(0) if tensor.dim() == 3 else tensor.flatten(0, -4)
    return arrays.host_view(tensor)


register_shapes("attention", lambda q, v: _empty_result(q, v))
