"""masked_linear on a GPU: one layer of all K sub-models in one launch, without masked copies.

A program owns a tile of one sub-model's outputs; thresholds are applied to each weight tile in
registers. Sub-models run side by side, so that a weight is read from memory once for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from lc_engine.kernels import config
from lc_engine.kernels.dtypes import TRITON_DTYPES, precision
from lc_engine.kernels.layer import activate, layer_outputs
from lc_engine.kernels.targets import target_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lc_engine.kernels.tiles import Tile


@triton.jit(do_not_specialize=["seed", "stream", "N"])
def _masked_linear_kernel(
    x_ptr,  # (N, D), or (K, N, D) where stride_xk is not 0
    w_ptr,  # (E, D)
    b_ptr,  # (E,) float32, padded to a multiple of BLOCK_E
    s_ptr,  # (E, D) float32, or None where saliencies are not GIVEN
    t_ptr,  # (K,) float32
    out_ptr,  # (K, N, E)
    stride_xk,
    seed,
    stream,
    N,
    D,
    E,
    ACTIVATION: tl.constexpr,
    SALIENCY: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # Sub-models vary fastest, so programs that share a tile of x or of the weight run together.
    k = tl.program_id(0)
    e0 = tl.program_id(1) * BLOCK_E
    first = tl.program_id(2).to(tl.int64) * BLOCK_N
    x_row = tl.minimum(tl.arange(0, BLOCK_N), (N - 1 - first).to(tl.int32))[:, None] * D
    x_tile = x_ptr + k.to(tl.int64) * stride_xk + first * D
    outputs = layer_outputs(
        x_tile, x_row, w_ptr, b_ptr, s_ptr, tl.load(t_ptr + k), e0, E, D, stream, seed,
        SALIENCY, COMPUTE, PRECISION, BLOCK_N, BLOCK_E, BLOCK_K,
    )  # fmt: skip
    outputs = activate(outputs, ACTIVATION)
    row = first + tl.arange(0, BLOCK_N)[:, None]
    column = e0 + tl.arange(0, BLOCK_E)[None, :]
    out = out_ptr + (k.to(tl.int64) * N + row) * E + column
    tl.store(out, outputs.to(out_ptr.dtype.element_ty), mask=(row < N) & (column < E))


def masked_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    saliency: Tensor | None,
    thresholds: Tensor,
    out: Tensor,
    *,
    source: int,
    seed: int,
    stream: int,
    activation: int,
    compute: torch.dtype,
    tile: Tile,
) -> None:
    """Run one layer of all K sub-models, in one launch.

    Args:
        x: (N, D) that all sub-models share, or (K, N, D), contiguous.
        weight: (E, D) contiguous.
        bias: (E,) float32, padded to whole tiles.
        saliency: (E, D) float32, or None where `source` is not GIVEN.
        thresholds: (K,) float32.
        out: (K, N, E) contiguous, written.
        source: MAGNITUDE, GIVEN or RANDOM of `kernels.saliency`.
        seed: key of the random saliency, as a signed 64-bit number.
        stream: of the random saliency.
        activation: NONE, RELU or GELU of `kernels.layer`.
        compute: dtype of the product's operands.
        tile: the block sizes.
    """
    samples, depth = x.shape[-2:]
    sub_models, width = len(thresholds), weight.shape[0]
    if not out.numel():
        return
    grid = (sub_models, triton.cdiv(width, tile.classes), triton.cdiv(samples, tile.rows))
    _masked_linear_kernel[grid](
        x,
        weight,
        bias,
        saliency,
        thresholds,
        out,
        samples * depth if x.dim() == 3 else 0,
        seed,
        stream,
        samples,
        depth,
        width,
        ACTIVATION=activation,
        SALIENCY=source,
        COMPUTE=TRITON_DTYPES[compute],
        PRECISION=precision(target_of(x.device), compute),
        BLOCK_N=tile.rows,
        BLOCK_E=tile.classes,
        BLOCK_K=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **config.OPTIONS,
    )
