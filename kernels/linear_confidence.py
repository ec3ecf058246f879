"""linear_confidence on a GPU: all K sub-models of a linear head in one launch.

A program owns a block of rows and iterates over sub-models and classes. The columns of a tile of
the product are BLOCK_C classes under each of BLOCK_S sub-models, so that one wide matrix
instruction serves them all, and an online softmax reduces it: no logits reach memory. Two
formulations share the kernel. *Expanded*: a weight is loaded once and compared with BLOCK_S
thresholds in registers. *Pre-masked*: the plan wrote the K masked heads once, and their tiles are
only loaded: faster for many rows, K times the memory. `config.premask` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from lc_engine.kernels import config
from lc_engine.kernels.bias import padded_bias
from lc_engine.kernels.dtypes import TRITON_DTYPES, compute_dtype, precision
from lc_engine.kernels.online_softmax import finish, update
from lc_engine.kernels.path_sum import chunk_sums, empty_parts, path_sum
from lc_engine.kernels.saliency import MAGNITUDE, saliency, signed, source_of
from lc_engine.kernels.targets import target_of

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.kernels.tiles import Tile

PREMASK_BLOCK = 1024
PREMASK_WARPS = 4


@triton.jit(do_not_specialize=["seed", "N", "C", "K"])
def _linear_confidence_kernel(
    x_ptr,  # (N, D)
    w_ptr,  # (C, D), or pre-masked (chunks, C, BLOCK_S, D)
    s_ptr,  # (C, D) float32, or None where saliencies are not GIVEN or the weight is pre-masked
    b_ptr,  # (C,) float32, padded with −∞ to a multiple of BLOCK_C
    y_ptr,  # (N,) int64, or None
    t_ptr,  # (K,) float32, or None where the weight is pre-masked
    omega_ptr,  # (K,) float64
    lc_ptr,  # (N,) float32, or None where parts are written
    loss_ptr,  # (N,) float32, or None where parts are written
    path_ptr,  # (K, N) float32, or None
    parts_ptr,  # (2, chunks, N) float64, or None where one program owns the path of a row
    seed,
    N,
    C,
    D,
    K,
    SALIENCY: tl.constexpr,
    EVEN_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    HAS_LABELS: tl.constexpr = y_ptr is not None
    HAS_PATH: tl.constexpr = path_ptr is not None
    HAS_PARTS: tl.constexpr = parts_ptr is not None
    PREMASKED: tl.constexpr = t_ptr is None
    COLUMNS: tl.constexpr = BLOCK_C * BLOCK_S
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    row = first + tl.arange(0, BLOCK_N)
    inside = row < N
    # Bases are 64-bit scalars, offsets in a tile 32-bit, which take half the registers.
    # Rows past the end repeat the last one, so loads need no mask; their scores are not stored.
    x_ptr += first * D
    x_row = tl.minimum(tl.arange(0, BLOCK_N), (N - 1 - first).to(tl.int32))[:, None] * D
    if HAS_LABELS:
        y = tl.load(y_ptr + row, mask=inside, other=-1).to(tl.int32)[:, None, None]
    lc = tl.zeros((BLOCK_N,), tl.float64)
    loss = tl.zeros((BLOCK_N,), tl.float64)

    for k0 in range(tl.program_id(1) * BLOCK_S, K, tl.num_programs(1) * BLOCK_S):
        k = k0 + tl.arange(0, BLOCK_S)
        if not PREMASKED:
            t = tl.load(t_ptr + k, mask=k < K, other=float("inf"))
        m = tl.full((BLOCK_N, BLOCK_S), -float("inf"), tl.float32)
        s = tl.zeros((BLOCK_N, BLOCK_S), tl.float32)
        z = tl.zeros((BLOCK_N, BLOCK_S), tl.float32)

        for c0 in range(0, C, BLOCK_C):
            c = c0 + tl.arange(0, BLOCK_C)
            if PREMASKED:
                # Rows are (chunk, class, sub-model of the chunk): a tile's columns are contiguous.
                w_tile = w_ptr + (tl.cast(k0, tl.int64) * C + c0 * BLOCK_S) * D
                w_row = tl.minimum(tl.arange(0, COLUMNS), (C - c0) * BLOCK_S - 1)[:, None] * D
            else:
                w_tile = w_ptr + tl.cast(c0, tl.int64) * D
                w_row = tl.minimum(tl.arange(0, BLOCK_C), C - c0 - 1)[:, None] * D
            product = tl.zeros((BLOCK_N, COLUMNS), tl.float32)
            for d0 in range(0, D, BLOCK_K):
                d = d0 + tl.arange(0, BLOCK_K)[None, :]
                if EVEN_D:
                    x = tl.load(x_ptr + (x_row + d))
                    w = tl.load(w_tile + (w_row + d))
                else:
                    x = tl.load(x_ptr + (x_row + d), mask=d < D, other=0.0)
                    w = tl.load(w_tile + (w_row + d), mask=d < D, other=0.0)
                w_compute = w.to(COMPUTE)
                if not PREMASKED:
                    offset = tl.cast(c0, tl.int64) * D + (w_row + d)
                    score = saliency(w, s_ptr, offset, d < D, 0, seed, SALIENCY)
                    kept = score[:, None, :] >= t[None, :, None]
                    w_compute = tl.where(kept, w_compute[:, None, :], 0.0)
                    w_compute = tl.reshape(w_compute, (COLUMNS, BLOCK_K))
                product = tl.dot(
                    x.to(COMPUTE), tl.trans(w_compute), product, input_precision=PRECISION
                )
            logits = tl.reshape(product, (BLOCK_N, BLOCK_C, BLOCK_S))
            logits += tl.load(b_ptr + c)[None, :, None]
            is_label = y == c[None, :, None] if HAS_LABELS else False
            m, s, z = update(m, s, z, logits, is_label, HAS_LABELS)

        log_p, p = finish(m, s, z, HAS_LABELS)
        omega = tl.load(omega_ptr + k, mask=k < K, other=0.0)
        lc_part, loss_part = chunk_sums(log_p, p, omega)
        if HAS_PATH:
            path = path_ptr + k.to(tl.int64)[None, :] * N + row[:, None]
            tl.store(path, log_p, mask=inside[:, None] & (k < K)[None, :])
        if HAS_PARTS:
            part = parts_ptr + tl.cast(k0 // BLOCK_S, tl.int64) * N + row
            tl.store(part, lc_part, mask=inside)
            tl.store(part + tl.cast(tl.cdiv(K, BLOCK_S), tl.int64) * N, loss_part, mask=inside)
        else:
            lc += lc_part
            loss += loss_part
    if not HAS_PARTS:
        tl.store(lc_ptr + row, lc.to(tl.float32), mask=inside)
        tl.store(loss_ptr + row, loss.to(tl.float32), mask=inside)


@triton.jit(do_not_specialize=["seed", "C", "K"])
def _premask_kernel(
    w_ptr,  # (C, D)
    s_ptr,  # float32 (C, D), or (K, C, D) where not NESTED; None where saliencies are not GIVEN
    t_ptr,  # (K,) float32
    out_ptr,  # (chunks, C, BLOCK_S, D)
    seed,
    C,
    D,
    K,
    NESTED: tl.constexpr,
    SALIENCY: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    numel = tl.cast(C, tl.int64) * D
    inside = index < numel
    w = tl.load(w_ptr + index, mask=inside, other=0.0)
    score = saliency(w, s_ptr, index, inside, 0, seed, SALIENCY)
    out = out_ptr + index // D * (D * BLOCK_S) + index % D
    for k in range(tl.cdiv(K, BLOCK_S) * BLOCK_S):
        if not NESTED:
            score = tl.load(s_ptr + tl.minimum(k, K - 1) * numel + index, mask=inside, other=0.0)
        t = tl.load(t_ptr + tl.minimum(k, K - 1))
        offset = (k // BLOCK_S) * numel * BLOCK_S + (k % BLOCK_S) * D
        tl.store(out + offset, tl.where(score >= t, w, 0.0).to(w.dtype), mask=inside)


@dataclass(frozen=True)
class LinearHead:
    """A prepared linear head, made by `prepare`.

    Attributes:
        weight: (C, D), or the pre-masked (chunks, C, K', D) with K' = `tile.sub_models`.
        bias: (C,) float32, padded with −∞ to whole tiles.
        thresholds: (K,) float32 on the device.
        saliency: (C, D) float32, or None where not GIVEN or the weight is pre-masked.
        source: MAGNITUDE, GIVEN or RANDOM of `kernels.saliency`.
        seed: key of the random saliency, as a signed 64-bit number.
        tile: the block sizes.
        premasked: whether the weight is pre-masked.
        classes: C.
    """

    weight: Tensor
    bias: Tensor
    thresholds: Tensor
    saliency: Tensor | None
    source: int
    seed: int
    tile: Tile
    premasked: bool
    classes: int


def prepare(
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None,
    seed: int | None,
    *,
    tile: Tile | None = None,
    premasked: bool | None = None,
) -> LinearHead:
    """Prepare a linear head, and write its masked copies where they fit in memory.

    Args:
        weight: (C, D) contiguous float32, bfloat16 or float16.
        bias: (C,) or None.
        thresholds: (K,) ascending.
        saliency: None for |w|; (C, D), or (K, C, D) where masks are not nested.
        seed: 64-bit key of a random saliency drawn in the kernel, in place of `saliency`.
        tile: block sizes, by default those of `config.linear`.
        premasked: the formulation, by default that of `config.premask`.

    Raises:
        ValueError: `premasked` is false for masks that are not nested.
    """
    classes, depth = weight.shape
    sub_models = thresholds.shape[0]
    itemsize = weight.element_size()
    nested = saliency is None or saliency.dim() == 2
    target = target_of(weight.device)
    if premasked is None:
        premasked = not nested or config.premask(target, itemsize, classes, depth, sub_models)
    if not (nested or premasked):
        raise ValueError("premasked must be true for a saliency (K, C, D): its masks do not nest")
    source = source_of(saliency, seed)
    tile = tile or config.linear(
        target,
        itemsize,
        classes,
        sub_models,
        premasked=premasked,
        scored=not premasked and source != MAGNITUDE.value,
    )
    key = signed(seed or 0)
    thresholds = thresholds.to(weight.device, torch.float32).contiguous()
    if saliency is not None:
        saliency = saliency.to(torch.float32).contiguous()
    if premasked:
        chunks = triton.cdiv(sub_models, tile.sub_models)
        masked = weight.new_empty((chunks, classes, tile.sub_models, depth))
        if masked.numel():
            _premask_kernel[(triton.cdiv(weight.numel(), PREMASK_BLOCK),)](
                weight,
                saliency,
                thresholds,
                masked,
                key,
                classes,
                depth,
                sub_models,
                NESTED=nested,
                SALIENCY=source,
                BLOCK_S=tile.sub_models,
                BLOCK=PREMASK_BLOCK,
                num_warps=PREMASK_WARPS,
                **config.OPTIONS,
            )
        weight, saliency = masked, None
    padded = padded_bias(bias, weight, classes, tile.classes, -float("inf"))
    return LinearHead(weight, padded, thresholds, saliency, source, key, tile, premasked, classes)


def linear_confidence(
    features: Tensor,
    head: LinearHead,
    labels: Tensor | None,
    path_weights: Tensor,
    return_path: bool,
    *,
    splits: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Score a batch under all sub-models of a prepared head.

    One launch; a second one for the sums over the path where rows alone do not fill the device.

    Args:
        features: (N, D) contiguous, of any dtype that the head may have.
        head: made by `prepare`, on the same device.
        labels: (N,) integers in [0, C), or None for the largest probability.
        path_weights: (K,) float64.
        return_path: whether to return log p (K, N) too.
        splits: number of programs that share the path of a row, by default `config.splits`.

    Returns:
        lc (N,), loss (N,) and log p (K, N) or None, all float32.
    """
    samples, depth = features.shape
    sub_models = head.thresholds.shape[0]
    lc = features.new_empty((samples,), dtype=torch.float32)
    loss = torch.empty_like(lc)
    path = lc.new_empty((sub_models, samples)) if return_path else None
    if samples == 0:
        return lc, loss, path
    tile = head.tile
    target = target_of(features.device)
    blocks, chunks = triton.cdiv(samples, tile.rows), triton.cdiv(sub_models, tile.sub_models)
    splits = splits or config.splits(target, samples, tile.rows, chunks)
    parts = empty_parts(splits, chunks, lc)
    compute = compute_dtype(features, head.weight)
    _linear_confidence_kernel[(blocks, splits)](
        features,
        head.weight,
        head.saliency,
        head.bias,
        None if labels is None else labels.to(torch.int64).contiguous(),
        None if head.premasked else head.thresholds,
        path_weights,
        lc if parts is None else None,
        loss if parts is None else None,
        path,
        parts,
        head.seed,
        samples,
        head.classes,
        depth,
        sub_models,
        SALIENCY=head.source,
        EVEN_D=depth % tile.depth == 0,
        COMPUTE=TRITON_DTYPES[compute],
        PRECISION=precision(target, compute),
        BLOCK_N=tile.rows,
        BLOCK_C=tile.classes,
        BLOCK_S=tile.sub_models,
        BLOCK_K=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **config.OPTIONS,
    )
    if parts is not None:
        path_sum(parts, lc, loss)
    return lc, loss, path
