"""Tiles of a masked layer: thresholds are applied to each weight tile in registers."""

from __future__ import annotations

import triton
import triton.language as tl

from lc_engine.kernels.saliency import WHOLE, saliency

NONE = tl.constexpr(0)
RELU = tl.constexpr(1)
GELU = tl.constexpr(2)  # exact, by the error function
ACTIVATIONS = {None: NONE.value, "relu": RELU.value, "gelu": GELU.value}


@triton.jit
def masked_weight(
    w_ptr, s_ptr, t, out0, OUT, in0, IN, stream, seed,
    SALIENCY: tl.constexpr, COMPUTE: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Return a (BLOCK_OUT, BLOCK_K) tile of a weight (OUT, IN) with 0 for weights under t.

    Rows past the end repeat the last one: their outputs meet zero columns in the next layer and
    padding classes in the last. `t` is None where SALIENCY is WHOLE.
    """
    row = tl.arange(0, BLOCK_OUT)[:, None]
    column = in0 + tl.arange(0, BLOCK_K)[None, :]
    base = tl.cast(out0, tl.int64) * IN
    offset = tl.minimum(row, OUT - out0 - 1) * IN + column
    w = tl.load(w_ptr + base + offset, mask=column < IN, other=0.0)
    if SALIENCY == WHOLE:
        w = w.to(COMPUTE)
    else:
        score = saliency(w, s_ptr, base + offset, column < IN, stream, seed, SALIENCY)
        w = tl.where(score >= t, w.to(COMPUTE), 0.0)
    return w


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """Apply the activation to a tile."""
    if ACTIVATION == GELU:
        x *= 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == RELU:
        # tl.maximum would drop a NaN.
        x = tl.where(x < 0.0, 0.0, x)
    return x


@triton.jit
def layer_outputs(
    x_ptr, x_row, w_ptr, b_ptr, s_ptr, t, out0, OUT, IN, stream, seed,
    SALIENCY: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Return BLOCK_OUT float32 outputs of one masked layer before its activation."""
    total = tl.zeros((BLOCK_N, BLOCK_OUT), tl.float32)
    for in0 in range(0, IN, BLOCK_K):
        column = in0 + tl.arange(0, BLOCK_K)[None, :]
        x = tl.load(x_ptr + (x_row + column), mask=column < IN, other=0.0)
        w = masked_weight(
            w_ptr, s_ptr, t, out0, OUT, in0, IN, stream, seed,
            SALIENCY, COMPUTE, BLOCK_OUT, BLOCK_K,
        )  # fmt: skip
        total = tl.dot(x.to(COMPUTE), tl.trans(w), total, input_precision=PRECISION)
    return total + tl.load(b_ptr + out0 + tl.arange(0, BLOCK_OUT))[None, :]
