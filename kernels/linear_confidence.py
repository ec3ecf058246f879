"""linear_confidence on a GPU: all K sub-models of a linear head in one launch.

A program owns a block of rows and walks over sub-models and classes. A tile of the product has
BLOCK_C classes under each of BLOCK_K sub-models as its columns, so that one wide
matrix instruction serves them all, and an online softmax takes it in: no logits reach memory.
Two formulations share the kernel. *Expanded*: a weight is loaded once and compared with BLOCK_K
thresholds in registers. *Pre-masked*: the plan wrote the K masked heads once, and tiles of them are
only loaded: faster where rows are many, K times the memory. `config.linear` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from lc_engine.kernels import config
from lc_engine.kernels.bias import padded_bias
from lc_engine.kernels.dtypes import TRITON_DTYPES
from lc_engine.kernels.online_softmax import close, take_in
from lc_engine.kernels.path_sum import chunk_sums, empty_parts, path_sum
from lc_engine.kernels.saliency import GIVEN, MAGNITUDE, RANDOM, saliency, signed

if TYPE_CHECKING:
    from torch import Tensor

PREMASK_BLOCK = 1024
PREMASK_WARPS = 4


@triton.jit(do_not_specialize=["seed", "N", "C", "K"])
def _linear_confidence_kernel(
    x_ptr,  # (N, D)
    w_ptr,  # (C, D), or pre-masked (chunks, C, BLOCK_K, D)
    s_ptr,  # (C, D) float32, read where SALIENCY is GIVEN
    b_ptr,  # (C,) float32, padded with −∞ to a multiple of BLOCK_C
    y_ptr,  # (N,) int64
    t_ptr,  # (K,) float32
    omega_ptr,  # (K,) float64
    lc_ptr,  # (N,) float32
    loss_ptr,  # (N,) float32
    path_ptr,  # (K, N) float32
    parts_ptr,  # (2, chunks, N) float64, written where SPLIT
    seed,
    N,
    C,
    D,
    K,
    HAS_LABELS: tl.constexpr,
    RETURN_PATH: tl.constexpr,
    SPLIT: tl.constexpr,
    PREMASKED: tl.constexpr,
    SALIENCY: tl.constexpr,
    EVEN_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    COLUMNS: tl.constexpr = BLOCK_C * BLOCK_K
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    row = first + tl.arange(0, BLOCK_N)
    inside = row < N
    # Bases are 64-bit scalars, offsets in a tile 32-bit: half the registers of 64-bit offsets.
    # Rows past the end repeat the last one: their loads need no mask, their scores are dropped.
    x_ptr += first * D
    x_row = tl.minimum(tl.arange(0, BLOCK_N), (N - 1 - first).to(tl.int32))[:, None] * D
    if HAS_LABELS:
        y = tl.load(y_ptr + row, mask=inside, other=-1).to(tl.int32)[:, None, None]
    lc = tl.zeros((BLOCK_N,), tl.float64)
    loss = tl.zeros((BLOCK_N,), tl.float64)

    for k0 in range(tl.program_id(1) * BLOCK_K, K, tl.num_programs(1) * BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        t = tl.load(t_ptr + k, mask=k < K, other=float("inf"))
        m = tl.full((BLOCK_N, BLOCK_K), -float("inf"), tl.float32)
        s = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
        z = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)

        for c0 in range(0, C, BLOCK_C):
            c = c0 + tl.arange(0, BLOCK_C)
            if PREMASKED:
                # Row (chunk, class, sub-model of the chunk): the columns of a tile are neighbours.
                w_tile = w_ptr + (tl.cast(k0, tl.int64) * C + c0 * BLOCK_K) * D
                w_row = tl.minimum(tl.arange(0, COLUMNS), (C - c0) * BLOCK_K - 1)[:, None] * D
            else:
                w_tile = w_ptr + tl.cast(c0, tl.int64) * D
                w_row = tl.minimum(tl.arange(0, BLOCK_C), C - c0 - 1)[:, None] * D
            product = tl.zeros((BLOCK_N, COLUMNS), tl.float32)
            for d0 in range(0, D, BLOCK_D):
                d = d0 + tl.arange(0, BLOCK_D)[None, :]
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
                    w_compute = tl.reshape(w_compute, (COLUMNS, BLOCK_D))
                product = tl.dot(
                    x.to(COMPUTE), tl.trans(w_compute), product, input_precision=PRECISION
                )
            logits = tl.reshape(product, (BLOCK_N, BLOCK_C, BLOCK_K))
            logits += tl.load(b_ptr + c)[None, :, None]
            is_label = y == c[None, :, None] if HAS_LABELS else False
            m, s, z = take_in(m, s, z, logits, is_label, HAS_LABELS)

        log_p, p = close(m, s, z, HAS_LABELS)
        omega = tl.load(omega_ptr + k, mask=k < K, other=0.0)
        lc_part, loss_part = chunk_sums(log_p, p, omega)
        if RETURN_PATH:
            path = path_ptr + k.to(tl.int64)[None, :] * N + row[:, None]
            tl.store(path, log_p, mask=inside[:, None] & (k < K)[None, :])
        if SPLIT:
            part = parts_ptr + tl.cast(k0 // BLOCK_K, tl.int64) * N + row
            tl.store(part, lc_part, mask=inside)
            tl.store(part + tl.cast(tl.cdiv(K, BLOCK_K), tl.int64) * N, loss_part, mask=inside)
        else:
            lc += lc_part
            loss += loss_part
    if not SPLIT:
        tl.store(lc_ptr + row, lc.to(tl.float32), mask=inside)
        tl.store(loss_ptr + row, loss.to(tl.float32), mask=inside)


@triton.jit(do_not_specialize=["seed", "C", "K"])
def _premask_kernel(
    w_ptr,  # (C, D)
    s_ptr,  # (C, D) or, where not NESTED, (K, C, D) float32
    t_ptr,  # (K,) float32
    out_ptr,  # (chunks, C, BLOCK_K, D)
    seed,
    C,
    D,
    K,
    NESTED: tl.constexpr,
    SALIENCY: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    numel = tl.cast(C, tl.int64) * D
    inside = index < numel
    w = tl.load(w_ptr + index, mask=inside, other=0.0)
    score = saliency(w, s_ptr, index, inside, 0, seed, SALIENCY)
    out = out_ptr + index // D * (D * BLOCK_K) + index % D
    for k in range(tl.cdiv(K, BLOCK_K) * BLOCK_K):
        if not NESTED:
            score = tl.load(s_ptr + tl.minimum(k, K - 1) * numel + index, mask=inside, other=0.0)
        t = tl.load(t_ptr + tl.minimum(k, K - 1))
        place = (k // BLOCK_K) * numel * BLOCK_K + (k % BLOCK_K) * D
        tl.store(out + place, tl.where(score >= t, w, 0.0).to(w.dtype), mask=inside)


@dataclass(frozen=True)
class LinearHead:
    """A head ready to be launched on batches; `prepare` makes one.

    Attributes:
        weight: (C, D), or the pre-masked (chunks, C, K', D) with K' = `tile.sub_models`.
        bias: (C,) float32, padded with −∞: what stands past the last class is no class.
        thresholds: (K,) float32 on the device.
        saliency: (C, D) float32 or None; None too where the weight is pre-masked.
        source: MAGNITUDE, GIVEN or RANDOM of `kernels.saliency`.
        seed: key of the random saliency, as a signed 64-bit number.
        tile: the tile that fits this head on its device.
        premasked: which of the two formulations runs.
        classes: C.
    """

    weight: Tensor
    bias: Tensor
    thresholds: Tensor
    saliency: Tensor | None
    source: int
    seed: int
    tile: config.Tile
    premasked: bool
    classes: int


def prepare(
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None,
    seed: int | None,
    *,
    tile: config.Tile | None = None,
    premasked: bool | None = None,
) -> LinearHead:
    """Prepare a linear head, and write its masked copies where that formulation is the faster.

    Args:
        weight: (C, D) contiguous float32, bfloat16 or float16.
        bias: (C,) or None.
        thresholds: (K,) ascending.
        saliency: None for |w|; (C, D), or (K, C, D) where masks are not nested.
        seed: 64-bit key of a random saliency drawn in the kernel, in place of `saliency`.
        tile: block sizes, by default those of `config.linear`.
        premasked: the formulation, by default that of `config.premask`.

    Raises:
        ValueError: masks that are not nested were asked to run unmasked.
    """
    classes, depth = weight.shape
    sub_models = thresholds.shape[0]
    itemsize = weight.element_size()
    nested = saliency is None or saliency.dim() == 2
    target = config.target_of(weight.device)
    if premasked is None:
        premasked = not nested or config.premask(target, itemsize, classes, depth, sub_models)
    if not (nested or premasked):
        raise ValueError("premasked must be true for a saliency (K, C, D): its masks do not nest")
    source = (RANDOM if seed is not None else GIVEN if saliency is not None else MAGNITUDE).value
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
                weight if saliency is None else saliency,
                thresholds,
                masked,
                key,
                classes,
                depth,
                sub_models,
                NESTED=nested,
                SALIENCY=source,
                BLOCK_K=tile.sub_models,
                BLOCK=PREMASK_BLOCK,
                num_warps=PREMASK_WARPS,
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

    One launch; a second and tiny one adds up the path where rows alone do not fill the device.

    Args:
        features: (N, D) contiguous, of any dtype that the head may have.
        head: made by `prepare`, on the same device.
        labels: (N,) integers in [0, C), or None for the largest probability.
        path_weights: (K,) float64.
        return_path: whether to return log p (K, N) too.
        splits: over how many programs to deal out the path, by default `config.splits`.

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
    target = config.target_of(features.device)
    blocks, chunks = triton.cdiv(samples, tile.rows), triton.cdiv(sub_models, tile.sub_models)
    splits = splits or config.splits(target, samples, tile.rows, chunks)
    parts = empty_parts(splits, chunks, lc)
    compute = config.compute_dtype(features, head.weight)
    _linear_confidence_kernel[(blocks, splits)](
        features,
        head.weight,
        head.weight if head.saliency is None else head.saliency,
        head.bias,
        lc if labels is None else labels.to(torch.int64).contiguous(),
        head.thresholds,
        path_weights,
        lc,
        loss,
        lc if path is None else path,
        parts,
        head.seed,
        samples,
        head.classes,
        depth,
        sub_models,
        HAS_LABELS=labels is not None,
        RETURN_PATH=return_path,
        SPLIT=splits > 1,
        PREMASKED=head.premasked,
        SALIENCY=head.source,
        EVEN_D=depth % tile.depth == 0,
        COMPUTE=TRITON_DTYPES[compute],
        PRECISION=config.precision(target, compute),
        BLOCK_N=tile.rows,
        BLOCK_C=tile.classes,
        BLOCK_K=tile.sub_models,
        BLOCK_D=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    if splits > 1:
        path_sum(parts, lc, loss)
    return lc, loss, path
