"""token_nll on a GPU: vocabulary head, log-softmax at the target and entropy, in one launch.

A program owns a block of one sub-model's tokens and iterates over the vocabulary; an online softmax
reduces each tile of logits, so none is written. Where the head is masked, thresholds are applied to
each weight tile in registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from lc_engine.kernels import config
from lc_engine.kernels.dtypes import TRITON_DTYPES, precision
from lc_engine.kernels.layer import layer_outputs
from lc_engine.kernels.saliency import WHOLE
from lc_engine.kernels.targets import target_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lc_engine.kernels.tiles import Tile


@triton.jit(do_not_specialize=["seed", "T", "V"])
def _token_nll_kernel(
    h_ptr,  # (T, D), or (K, T, D) where stride_hk is not 0
    w_ptr,  # (V, D)
    b_ptr,  # (V,) float32, padded with −∞ to a multiple of BLOCK_V
    s_ptr,  # (V, D) float32, or None where saliencies are not GIVEN
    t_ptr,  # (K,) float32, or None where SALIENCY is WHOLE
    y_ptr,  # (T,) int64
    nll_ptr,  # (K, T) float32
    entropy_ptr,  # (K, T) float32, or None
    stride_hk,
    seed,
    T,
    V,
    D,
    SALIENCY: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    HAS_ENTROPY: tl.constexpr = entropy_ptr is not None
    k = tl.program_id(0)
    first = tl.program_id(1).to(tl.int64) * BLOCK_N
    row = first + tl.arange(0, BLOCK_N)
    inside = row < T
    h_row = tl.minimum(tl.arange(0, BLOCK_N), (T - 1 - first).to(tl.int32))[:, None] * D
    h_tile = h_ptr + k.to(tl.int64) * stride_hk + first * D
    target = tl.load(y_ptr + row, mask=inside, other=-1).to(tl.int32)[:, None]
    t = None if SALIENCY == WHOLE else tl.load(t_ptr + k)
    # The largest logit m so far, s = Σ e^(l − m), u = Σ (l − m) e^(l − m), and the target's logit.
    m = tl.full((BLOCK_N,), -float("inf"), tl.float32)
    s = tl.zeros((BLOCK_N,), tl.float32)
    u = tl.zeros((BLOCK_N,), tl.float32)
    z = tl.zeros((BLOCK_N,), tl.float32)
    for v0 in range(0, V, BLOCK_V):
        logits = layer_outputs(
            h_tile, h_row, w_ptr, b_ptr, s_ptr, t, v0, V, D, 0, seed,
            SALIENCY, COMPUTE, PRECISION, BLOCK_N, BLOCK_V, BLOCK_K,
        )  # fmt: skip
        token = v0 + tl.arange(0, BLOCK_V)[None, :]
        z += tl.sum(tl.where(target == token, logits, 0.0), axis=1)
        larger = tl.maximum(m, tl.max(logits, axis=1))
        # Where all logits are −∞ the state stays: −∞ − (−∞) would be NaN.
        base = tl.where(larger == -float("inf"), 0.0, larger)
        scale = tl.exp(m - base)
        logits -= base[:, None]
        e = tl.exp(logits)
        if HAS_ENTROPY:
            fall = tl.where(m == -float("inf"), 0.0, m - base)
            # A token of probability 0 has a logit of −∞ here, and 0 · ∞ would be NaN.
            u = scale * (u + fall * s) + tl.sum(tl.where(e == 0.0, 0.0, e * logits), axis=1)
        s = s * scale + tl.sum(e, axis=1)
        m = larger
    out = k.to(tl.int64) * T + row
    tl.store(nll_ptr + out, tl.log(s) - (z - m), mask=inside)
    if HAS_ENTROPY:
        tl.store(entropy_ptr + out, tl.log(s) - u / s, mask=inside)


def token_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    saliency: Tensor | None,
    thresholds: Tensor | None,
    targets: Tensor,
    nll: Tensor,
    entropy: Tensor | None,
    *,
    source: int,
    seed: int,
    compute: torch.dtype,
    tile: Tile,
) -> None:
    """Score T tokens under K sub-models, in one launch.

    Args:
        hidden: (T, D) that all sub-models share, or (K, T, D), contiguous.
        weight: (V, D) contiguous.
        bias: (V,) float32, padded with −∞ to whole tiles.
        saliency: (V, D) float32, or None where `source` is not GIVEN.
        thresholds: (K,) float32, or None where `source` is WHOLE.
        targets: (T,) int64 in [0, V).
        nll: (K, T) float32, written.
        entropy: (K, T) float32, written, or None.
        source: WHOLE, MAGNITUDE, GIVEN or RANDOM of `kernels.saliency`.
        seed: key of the random saliency, as a signed 64-bit number.
        compute: dtype of the product's operands.
        tile: the block sizes.
    """
    tokens, depth = hidden.shape[-2:]
    if not nll.numel():
        return
    _token_nll_kernel[(nll.shape[0], triton.cdiv(tokens, tile.rows))](
        hidden,
        weight,
        bias,
        saliency,
        thresholds,
        targets,
        nll,
        entropy,
        tokens * depth if hidden.dim() == 3 else 0,
        seed,
        tokens,
        weight.shape[0],
        depth,
        SALIENCY=source,
        COMPUTE=TRITON_DTYPES[compute],
        PRECISION=precision(target_of(hidden.device), compute),
        BLOCK_N=tile.rows,
        BLOCK_V=tile.classes,
        BLOCK_K=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **config.OPTIONS,
    )
