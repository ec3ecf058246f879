"""prototype_confidence on a GPU: distances to all prototypes for all K sub-models in one launch.

A program owns a block of rows and iterates over sub-models and classes; an online softmax reduces
each tile of logits, so neither the (K, N, C) distances nor the logits reach memory. The cosine is a
product and runs on the tensor cores. Distances are sums of squared float32 differences: the product
form ‖z‖² + ‖μ‖² − 2 z·μ cancels the digits of small distances, which dominate 1/d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from lc_engine.kernels import config
from lc_engine.kernels.dtypes import TRITON_DTYPES, compute_dtype, precision
from lc_engine.kernels.online_softmax import finish, update
from lc_engine.kernels.path_sum import chunk_sums, empty_parts, path_sum
from lc_engine.kernels.targets import target_of

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.kernels.tiles import Tile

INVERSE_DISTANCE = tl.constexpr(0)
NEG_SQ_DISTANCE = tl.constexpr(1)
COSINE = tl.constexpr(2)
LOGITS = {"inverse_distance": 0, "neg_sq_distance": 1, "cosine": 2}


@triton.jit(do_not_specialize=["N", "C", "K"])
def _prototype_confidence_kernel(
    x_ptr,  # (K, N, D)
    mu_ptr,  # (C, D)
    norm_ptr,  # (C,) float32 ‖μ‖ for the cosine, else None
    y_ptr,  # (N,) int64, or None
    omega_ptr,  # (K,) float64
    lc_ptr,  # (N,) float32, or None where parts are written
    loss_ptr,  # (N,) float32, or None where parts are written
    path_ptr,  # (K, N) float32, or None
    parts_ptr,  # (2, K, N) float64, or None where one program owns the path of a row
    scale,  # 1 / temperature
    min_distance,
    min_norm,
    N,
    C,
    D,
    K,
    LOGIT: tl.constexpr,
    EVEN_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    HAS_LABELS: tl.constexpr = y_ptr is not None
    HAS_PATH: tl.constexpr = path_ptr is not None
    HAS_PARTS: tl.constexpr = parts_ptr is not None
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    row = first + tl.arange(0, BLOCK_N)
    inside = row < N
    # Rows past the end repeat the last one, so loads need no mask; their scores are not stored.
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
            squares = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
            for d0 in range(0, D, BLOCK_K):
                d = d0 + tl.arange(0, BLOCK_K)[None, :]
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
                # Reduced over D at the end: until then no thread needs another's elements.
                squares = tl.zeros((BLOCK_N, BLOCK_C, BLOCK_K), tl.float32)
            for d0 in range(0, D, BLOCK_K):
                d = d0 + tl.arange(0, BLOCK_K)[None, :]
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
            m, s, z = update(m, s, z, logits, is_label, HAS_LABELS)

        log_p, p = finish(m, s, z, HAS_LABELS)
        omega = tl.load(omega_ptr + k + tl.arange(0, 1))
        lc_part, loss_part = chunk_sums(log_p[:, None], p[:, None], omega)
        if HAS_PATH:
            tl.store(path_ptr + tl.cast(k, tl.int64) * N + row, log_p, mask=inside)
        if HAS_PARTS:
            part = parts_ptr + tl.cast(k, tl.int64) * N + row
            tl.store(part, lc_part, mask=inside)
            tl.store(part + tl.cast(K, tl.int64) * N, loss_part, mask=inside)
        else:
            lc += lc_part
            loss += loss_part
    if not HAS_PARTS:
        tl.store(lc_ptr + row, lc.to(tl.float32), mask=inside)
        tl.store(loss_ptr + row, loss.to(tl.float32), mask=inside)


@dataclass(frozen=True)
class PrototypeHead:
    """Prepared class prototypes, made by `prepare`.

    Attributes:
        prototypes: (C, D).
        norms: (C,) float32 ‖μ‖ for the cosine, else None.
        logit: INVERSE_DISTANCE, NEG_SQ_DISTANCE or COSINE.
        scale: 1 / temperature.
        tile: the block sizes.
    """

    prototypes: Tensor
    norms: Tensor | None
    logit: int
    scale: float
    tile: Tile


def prepare(
    prototypes: Tensor, logit: str, temperature: float, *, tile: Tile | None = None
) -> PrototypeHead:
    """Prepare class prototypes (C, D), contiguous; `tile` is by default that of `config.prototype`.

    Raises:
        KeyError: `logit` is not in `LOGITS`.
    """
    target = target_of(prototypes.device)
    norms = None
    if logit == "cosine":
        norms = torch.linalg.vector_norm(prototypes, dim=1, dtype=torch.float32)
    return PrototypeHead(
        prototypes,
        norms,
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

    One launch; a second one for the sums over the path where rows alone do not fill the device.

    Args:
        features: (K, N, D) contiguous, of any dtype that the prototypes may have.
        head: made by `prepare`, on the same device.
        labels: (N,) integers in [0, C), or None for the largest probability.
        path_weights: (K,) float64.
        return_path: whether to return log p (K, N) too.
        min_distance: lower bound of distances in 1/d.
        min_norm: lower bound of norms in the cosine.
        splits: number of programs that share the path of a row, by default `config.splits`.

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
    target = target_of(features.device)
    splits = splits or config.splits(target, samples, tile.rows, sub_models)
    parts = empty_parts(splits, sub_models, lc)
    compute = compute_dtype(features, head.prototypes)
    _prototype_confidence_kernel[(triton.cdiv(samples, tile.rows), splits)](
        features,
        head.prototypes,
        head.norms,
        None if labels is None else labels.to(torch.int64).contiguous(),
        path_weights,
        lc if parts is None else None,
        loss if parts is None else None,
        path,
        parts,
        head.scale,
        min_distance,
        min_norm,
        samples,
        classes,
        depth,
        sub_models,
        LOGIT=head.logit,
        EVEN_D=depth % tile.depth == 0,
        COMPUTE=TRITON_DTYPES[compute],
        PRECISION=precision(target, compute),
        BLOCK_N=tile.rows,
        BLOCK_C=tile.classes,
        BLOCK_K=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **config.OPTIONS,
    )
    if parts is not None:
        path_sum(parts, lc, loss)
    return lc, loss, path
