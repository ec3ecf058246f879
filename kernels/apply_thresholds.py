"""apply_thresholds on a GPU: every masked tensor of a model in one launch.

A table on the device, (6, tensors) int64, holds each tensor's addresses (pristine, live, saliency;
0 for no saliency), its number of elements, its first block and the bits of its threshold; a program
finds its tensor by bisection over the first blocks. The launch is bound by memory: a weight is read
and written once.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from lc_engine.kernels import config
from lc_engine.kernels.dtypes import TRITON_DTYPES
from lc_engine.kernels.saliency import GIVEN, saliency, signed, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

BLOCK = 2048
NUM_WARPS = 4


@triton.jit
def _mask_block(w_ptr, out_ptr, s_ptr, t, index, inside, stream, seed, SALIENCY: tl.constexpr):
    w = tl.load(w_ptr + index, mask=inside)
    score = saliency(w, s_ptr, index, inside, stream, seed, SALIENCY)
    tl.store(out_ptr + index, tl.where(score >= t, w, 0.0).to(w.dtype), mask=inside)


@triton.jit(do_not_specialize=["seed", "TENSORS", "STEPS"])
def _apply_thresholds_kernel(
    table_ptr,  # (6, TENSORS) int64
    seed,
    TENSORS,
    STEPS,
    SALIENCY: tl.constexpr,
    ALIGNED: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.program_id(0)
    # The last tensor whose first block is not after this one.
    low = 0
    high = TENSORS - 1
    for _ in range(STEPS):
        middle = (low + high + 1) // 2
        after = tl.load(table_ptr + 4 * TENSORS + middle) > block
        low = tl.where(after, low, middle)
        high = tl.where(after, middle - 1, high)
    entry = table_ptr + low
    w_ptr = tl.load(entry).to(tl.pointer_type(DTYPE))
    out_ptr = tl.load(entry + TENSORS).to(tl.pointer_type(DTYPE))
    if ALIGNED:
        w_ptr = tl.multiple_of(w_ptr, 16)
        out_ptr = tl.multiple_of(out_ptr, 16)
    if SALIENCY == GIVEN:
        s_ptr = tl.load(entry + 2 * TENSORS).to(tl.pointer_type(tl.float32))
        if ALIGNED:
            s_ptr = tl.multiple_of(s_ptr, 16)
    else:
        s_ptr = None
    numel = tl.load(entry + 3 * TENSORS)
    start = (block - tl.load(entry + 4 * TENSORS)) * BLOCK
    index = start + tl.arange(0, BLOCK)
    t = tl.load(entry + 5 * TENSORS).to(tl.int32).to(tl.float32, bitcast=True)
    # Only the last block of a tensor needs a mask; without one, loads and stores are vectors.
    if start + BLOCK <= numel:
        _mask_block(w_ptr, out_ptr, s_ptr, t, index, None, low, seed, SALIENCY)
    else:
        _mask_block(w_ptr, out_ptr, s_ptr, t, index, index < numel, low, seed, SALIENCY)


# The same tables come with every batch, and a copy to the device blocks the host and may not run
# while a CUDA graph is captured.
@functools.lru_cache(maxsize=4096)
def _cached(table: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    return torch.tensor(table, dtype=torch.int64).to(device)


_kept: list[Tensor] | None = None


@contextlib.contextmanager
def tables_kept() -> Iterator[list[Tensor]]:
    """Collect the tables that launches read, which a graph of them reads again at every replay.

    Yields a list that fills while the context is open and must live as long as the graph.
    """
    global _kept
    before, _kept = _kept, []
    try:
        yield _kept
    finally:
        _kept = before


def _on_device(table: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    found = _cached(table, device)
    if _kept is not None:
        _kept.append(found)
    return found


def apply_thresholds(
    pristine: Sequence[Tensor],
    live: Sequence[Tensor],
    thresholds: Sequence[float],
    saliency: Sequence[Tensor],
    seed: int | None,
) -> None:
    """Write pristine_i ⊙ [s_i ≥ t_i] over live_i for all tensors, in one launch.

    Args:
        pristine: contiguous tensors of one dtype on one device.
        live: tensors of the same shapes and dtype, overwritten.
        thresholds: one number per tensor.
        saliency: one tensor per weight tensor, or empty for |w|.
        seed: key of a random saliency in place of both; tensor i draws from stream i.
    """
    given = [s.to(torch.float32).contiguous() for s in saliency]
    first, blocks = [], 0
    for source in pristine:
        first.append(blocks)
        blocks += triton.cdiv(source.numel(), BLOCK)
    if blocks == 0:
        return
    table = (
        tuple(source.data_ptr() for source in pristine),
        tuple(target.data_ptr() for target in live),
        tuple(score.data_ptr() for score in given) or (0,) * len(pristine),
        tuple(source.numel() for source in pristine),
        tuple(first),
        tuple(struct.unpack("<i", struct.pack("<f", t))[0] for t in thresholds),
    )
    aligned = all(address % 16 == 0 for row in table[:3] for address in row)
    _apply_thresholds_kernel[(blocks,)](
        _on_device(table, pristine[0].device),
        signed(seed or 0),
        len(pristine),
        (len(pristine) - 1).bit_length(),
        SALIENCY=source_of(given or None, seed),
        ALIGNED=aligned,
        DTYPE=TRITON_DTYPES[pristine[0].dtype],
        BLOCK=BLOCK,
        num_warps=NUM_WARPS,
        **config.OPTIONS,
    )
