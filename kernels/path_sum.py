"""Sums over the learning path at the end of every scoring kernel: float64, in a fixed order.

A program that owns all sub-models of its rows writes lc and loss itself. Where rows alone do not
fill the device, several programs share the path of a row: each writes the sums of its chunks, and
`_path_sum_kernel`, a second and small launch, adds them in the order of the path. Both add the same
numbers in the same order, so the bits of a result do not depend on the split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from lc_engine.kernels import config

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_N = 256
NUM_WARPS = 4


@triton.jit
def chunk_sums(log_p, p, omega):
    """Return Σ ω p and Σ −ω log p over a chunk of sub-models: (rows, K') -> (rows,) in float64."""
    omega = omega[None, :]
    # Where ω is 0 and log p is −∞, the product would be NaN.
    loss = tl.where(omega == 0.0, 0.0, -omega * log_p.to(tl.float64))
    return tl.sum(omega * p.to(tl.float64), axis=1), tl.sum(loss, axis=1)


@triton.jit(do_not_specialize=["N", "CHUNKS"])
def _path_sum_kernel(
    parts_ptr,  # (2, CHUNKS, N) float64
    lc_ptr,  # (N,) float32
    loss_ptr,  # (N,) float32
    N,
    CHUNKS,
    BLOCK_N: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = row < N
    lc = tl.zeros((BLOCK_N,), tl.float64)
    loss = tl.zeros((BLOCK_N,), tl.float64)
    for chunk in range(CHUNKS):
        part = parts_ptr + tl.cast(chunk, tl.int64) * N + row
        lc += tl.load(part, mask=inside, other=0.0)
        loss += tl.load(part + tl.cast(CHUNKS, tl.int64) * N, mask=inside, other=0.0)
    tl.store(lc_ptr + row, lc.to(tl.float32), mask=inside)
    tl.store(loss_ptr + row, loss.to(tl.float32), mask=inside)


def path_sum(parts: Tensor, lc: Tensor, loss: Tensor) -> None:
    """Add the chunks of `parts` (2, chunks, N) float64 into `lc` and `loss` (N,) float32."""
    _, chunks, samples = parts.shape
    _path_sum_kernel[(triton.cdiv(samples, BLOCK_N),)](
        parts, lc, loss, samples, chunks, BLOCK_N=BLOCK_N, num_warps=NUM_WARPS, **config.OPTIONS
    )


def empty_parts(splits: int, chunks: int, like: Tensor) -> Tensor | None:
    """Return the buffer of chunk sums (2, chunks, N), or None where one program owns a path."""
    if splits == 1:
        return None
    return torch.empty((2, chunks, like.shape[0]), dtype=torch.float64, device=like.device)
