"""prototype_confidence on a GPU: distances to all prototypes for all K sub-models in one launch.

A program owns a block of rows and walks over sub-models and classes; an online softmax takes in
each tile of logits, so neither the (K, N, C) distances nor the logits reach memory. The cosine is a
product and runs on the tensor cores. Distances are sums of squared float32 differences: the product
form ‖z‖² + ‖μ‖² − 2 z·μ loses the digits of exactly the small distances that 1/d lives on. That
is 2 instructions per sample, sub-model, class and feature, on the order of a hundredth of the
network's forward pass that made the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from lc_engine.kernels import config
from lc_engine.kernels.dtypes import TRITON_DTYPES
from lc_engine.kernels.online_softmax import close, take_in
from lc_engine.kernels.path_sum import chunk_sums, empty_parts, path_sum

if TYPE_CHECKING:
    from torch import Tensor

INVERSE_DISTANCE = tl.constexpr(0)
NEG_SQ_DISTANCE = tl.constexpr(1)
COSINE = tl.constexpr(2)
LOGITS = {"inverse_distance": 0, "neg_sq_distance": 1, "cosine": 2}


@triton.jit(do_not_specialize=["N", "C", "K"])
def _prototype_confidence_kernel(
    x_ptr,  # (K, N, D)
    mu_ptr,  # (C, D)
    norm_ptr,  # (C,) float32 ‖μ‖, read for the cosine
    y_ptr,  # (N,) int64
    omega_ptr,  # (K,) float64
    lc_ptr,  # (N,) float32
    loss_ptr,  # (N,) float32
    path_ptr,  # (K, N) float32
    parts_ptr,  # (2, K, N) float64, written where SPLIT
    scale,  # 1 / temperature
    min_distance,
    min_norm,
    N,
    C,
    D,
    K,
    HAS_LABELS: tl.constexpr,
    RETURN_PATH: tl.constexpr,
    SPLIT: tl.constexpr,
    LOGIT: tl.constexpr,
    EVEN_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    row = first + tl.arange(0, BLOCK_N)
    inside = row < N
    # Rows past the end repeat the last one: their loads need no mask, their scores are dropped.
    x_row = tl.minimum(tl.arange(0, BLOCK_N), (N - 1 - first).to(tl.int32))[:, None] * D
    if HAS_LABELS:
        y = tl.load(y_ptr + row, mask=inside, other=-1).to(tl.int32)[:, None]
    lc = tl.zeros((BLOCK_N,), tl.float64)
    loss = tl.zeros((BLOCK_N,), tl.float64)

    for k in range(tl.program_id(1), K, tl.num_programs(1)):
        x_tile = x_ptr + (tl.cast(k, tl.int64) * N + first) * D
        m = tl.full((BLOCK_N,), -float("inf"), tl.float32)
        s = tl.zeros((BLOCK_N,), tl.float32)
        z = tl.zeros((BLOCK_N,), tl.float32)
        if LOGIT == COSINE:
            squares = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
            for d0 in range(0, D, BLOCK_D):
                d = d0 + tl.arange(0, BLOCK_D)[None, :]
                x = tl.load(x_tile + (x_row + d), mask=d < D, other=0.0).to(tl.float32)
                squares += x * x
            shrink = scale / tl.maximum(tl.sqrt_rn(tl.sum(squares, axis=1)), min_norm)

        for c0 in range(0, C, BLOCK_C):
            c = c0 + tl.arange(0, BLOCK_C)
            mu_tile = mu_ptr + tl.cast(c0, tl.int64) * D
            mu_row = tl.minimum(tl.arange(0, BLOCK_C), C - c0 - 1)[:, None] * D
            if LOGIT == COSINE:
                total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
            else:
                # Summed over D in the end: until then every thread adds to its own elements.
                squares = tl.zeros((BLOCK_N, BLOCK_C, BLOCK_D), tl.float32)
            for d0 in range(0, D, BLOCK_D):
                d = d0 + tl.arange(0, BLOCK_D)[None, :]
                if EVEN_D:
                    x = tl.load(x_tile + (x_row + d))
                    mu = tl.load(mu_tile + (mu_row + d))
                else:
                    x = tl.load(x_tile + (x_row + d), mask=d < D, other=0.0)
                    mu = tl.load(mu_tile + (mu_row + d), mask=d < D, other=0.0)
                if LOGIT == COSINE:
                    total = tl.dot(
                        x.to(COMPUTE), tl.trans(mu.to(COMPUTE)), total, input_precision=PRECISION
                    )
                else:
                    difference = x.to(tl.float32)[:, None, :] - mu.to(tl.float32)[None, :, :]
                    squares += difference * difference
            if LOGIT == COSINE:
                norm = tl.maximum(tl.load(norm_ptr + tl.minimum(c, C - 1)), min_norm)
                logits = total * shrink[:, None] * (1.0 / norm)[None, :]
            else:
                total = tl.sum(squares, axis=2)
                if LOGIT == INVERSE_DISTANCE:
                    logits = scale / tl.maximum(tl.sqrt_rn(total), min_distance)
                else:
                    logits = -total * scale
            logits = tl.where((c < C)[None, :], logits, -float("inf"))
            is_label = y == c[None, :] if HAS_LABELS else False
            m, s, z = take_in(m, s, z, logits, is_label, HAS_LABELS)

        log_p, p = close(m, s, z, HAS_LABELS)
        omega = tl.load(omega_ptr + k + tl.arange(0, 1))
        lc_part, loss_part = chunk_sums(log_p[:, None], p[:, None], omega)
        if RETURN_PATH:
            tl.store(path_ptr + tl.cast(k, tl.int64) * N + row, log_p, mask=inside)
        if SPLIT:
            part = parts_ptr + tl.cast(k, tl.int64) * N + row
            tl.store(part, lc_part, mask=inside)
            tl.store(part + tl.cast(K, tl.int64) * N, loss_part, mask=inside)
        else:
            lc += lc_part
            loss += loss_part
    if not SPLIT:
        tl.store(lc_ptr + row, lc.to(tl.float32), mask=inside)
        tl.store(loss_ptr + row, loss.to(tl.float32), mask=inside)


@dataclass(frozen=True)
class PrototypeHead:
    """Class prototypes ready to be compared with batches; `prepare` makes one.

    Attributes:
        prototypes: (C, D).
        norms: (C,) float32 ‖μ‖.
        logit: INVERSE_DISTANCE, NEG_SQ_DISTANCE or COSINE.
        scale: 1 / temperature.
        tile: the tile that fits on the prototypes' device.
    """

    prototypes: Tensor
    norms: Tensor
    logit: int
    scale: float
    tile: config.Tile


def prepare(
    prototypes: Tensor, logit: str, temperature: float, *, tile: config.Tile | None = None
) -> PrototypeHead:
    """Prepare class prototypes (C, D), contiguous; `tile` is by default that of `config.prototype`.

    Raises:
        KeyError: a logit that is none of `LOGITS`.
    """
    target = config.target_of(prototypes.device)
    return PrototypeHead(
        prototypes,
        torch.linalg.vector_norm(prototypes, dim=1, dtype=torch.float32),
        LOGITS[logit],
        1.0 / temperature,
        tile or config.prototype(target, prototypes.element_size(), logit == "cosine"),
    )


def prototype_confidence(
    features: Tensor,
    head: PrototypeHead,
    labels: Tensor | None,
    path_weights: Tensor,
    return_path: bool,
    *,
    min_distance: float,
    min_norm: float,
    splits: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Score a batch under all sub-models.

    One launch; a second and tiny one adds up the path where rows alone do not fill the device.

    Args:
        features: (K, N, D) contiguous, of any dtype that the prototypes may have.
        head: made by `prepare`, on the same device.
        labels: (N,) integers in [0, C), or None for the largest probability.
        path_weights: (K,) float64.
        return_path: whether to return log p (K, N) too.
        min_distance: distances below this count as this in 1/d.
        min_norm: norms below this count as this in the cosine.
        splits: over how many programs to deal out the path, by default `config.splits`.

    Returns:
        lc (N,), loss (N,) and log p (K, N) or None, all float32.
    """
    sub_models, samples, depth = features.shape
    classes = head.prototypes.shape[0]
    lc = features.new_empty((samples,), dtype=torch.float32)
    loss = torch.empty_like(lc)
    path = lc.new_empty((sub_models, samples)) if return_path else None
    if samples == 0:
        return lc, loss, path
    tile = head.tile
    target = config.target_of(features.device)
    splits = splits or config.splits(target, samples, tile.rows, sub_models)
    parts = empty_parts(splits, sub_models, lc)
    compute = config.compute_dtype(features, head.prototypes)
    _prototype_confidence_kernel[(triton.cdiv(samples, tile.rows), splits)](
        features,
        head.prototypes,
        head.norms,
        lc if labels is None else labels.to(torch.int64).contiguous(),
        path_weights,
        lc,
        loss,
        lc if path is None else path,
        parts,
        head.scale,
        min_distance,
        min_norm,
        samples,
        classes,
        depth,
        sub_models,
        HAS_LABELS=labels is not None,
        RETURN_PATH=return_path,
        SPLIT=splits > 1,
        LOGIT=head.logit,
        EVEN_D=depth % tile.depth == 0,
        COMPUTE=TRITON_DTYPES[compute],
        PRECISION=config.precision(target, compute),
        BLOCK_N=tile.rows,
        BLOCK_C=tile.classes,
        BLOCK_D=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    if splits > 1:
        path_sum(parts, lc, loss)
    return lc, loss, path
