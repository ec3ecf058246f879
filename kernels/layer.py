"""One masked layer: a tile of its outputs, thresholds applied to each weight tile in registers."""

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
    SALIENCY: tl.constexpr, COMPUTE: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
):  # fmt: skip
    """Load a (BLOCK_OUT, BLOCK_IN) tile of a weight (OUT, IN) with 0 for weights under t.

    Rows past the end repeat the last one: what they give meets columns past the end, which are 0,
    in the next layer, or is no class in the last.
    """
    row = tl.arange(0, BLOCK_OUT)[:, None]
    column = in0 + tl.arange(0, BLOCK_IN)[None, :]
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
        # Not tl.maximum: a NaN must stay one.
        x = tl.where(x < 0.0, 0.0, x)
    return x


@triton.jit
def layer_outputs(
    x_ptr, x_row, w_ptr, b_ptr, s_ptr, t, out0, OUT, IN, stream, seed,
    SALIENCY: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
):  # fmt: skip
    """Give BLOCK_OUT outputs of one masked layer before its activation: float32."""
    total = tl.zeros((BLOCK_N, BLOCK_OUT), tl.float32)
    for in0 in range(0, IN, BLOCK_IN):
        column = in0 + tl.arange(0, BLOCK_IN)[None, :]
        x = tl.load(x_ptr + (x_row + column), mask=column < IN, other=0.0)
        w = masked_weight(
            w_ptr, s_ptr, t, out0, OUT, in0, IN, stream, seed,
            SALIENCY, COMPUTE, BLOCK_OUT, BLOCK_IN,
        )  # fmt: skip
        total = tl.dot(x.to(COMPUTE), tl.trans(w), total, input_precision=PRECISION)
    return total + tl.load(b_ptr + out0 + tl.arange(0, BLOCK_OUT))[None, :]
