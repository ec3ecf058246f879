"""mlp_confidence on a GPU: all K sub-models of an MLP head, hidden activations kept on the chip.

A program owns a block of rows and iterates over sub-models. The last hidden layer is a tile (rows,
width) in registers, an operand of the class tiles' products; an online softmax reduces their
logits. Thresholds are applied to each weight tile in registers. A head with one hidden layer is one
launch. Hidden layers before the last, and the last too where it is wider than `config.mlp_width`,
are split off: launches of their own over a bounded buffer (K, rows, width).
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
from lc_engine.kernels.layer import ACTIVATIONS, activate, layer_outputs, masked_weight
from lc_engine.kernels.masked_linear import masked_linear
from lc_engine.kernels.online_softmax import finish, update
from lc_engine.kernels.path_sum import chunk_sums, empty_parts, path_sum
from lc_engine.kernels.saliency import MAGNITUDE, signed, source_of
from lc_engine.kernels.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lc_engine.kernels.tiles import Tile


@triton.jit(do_not_specialize=["seed", "layer", "N", "C", "K", "stride_path"])
def _mlp_confidence_kernel(
    x_ptr,  # (N, D), or (K, N, D) where stride_xk is not 0
    w1_ptr,  # (H, D) where the last hidden layer is fused, else None
    b1_ptr,  # (H,) float32, padded to BLOCK_H, or None likewise
    s1_ptr,  # (H, D) float32, or None likewise and where saliencies are not GIVEN
    w_ptr,  # (C, H) where fused, else (C, D)
    b_ptr,  # (C,) float32, padded with −∞ to a multiple of BLOCK_C
    s_ptr,  # float32 of w's shape, or None where saliencies are not GIVEN
    y_ptr,  # (N,) int64, or None
    t_ptr,  # float32 (2, K) where fused, else (1, K)
    omega_ptr,  # (K,) float64
    lc_ptr,  # (N,) float32, or None where parts are written
    loss_ptr,  # (N,) float32, or None where parts are written
    path_ptr,  # (K, N) float32 with row stride stride_path, or None
    parts_ptr,  # (2, K, N) float64, or None where one program owns the path of a row
    stride_xk,
    stride_path,
    seed,
    layer,  # index of the first weight of this launch
    N,
    C,
    D,
    H,
    K,
    ACTIVATION: tl.constexpr,
    SALIENCY: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    FUSED: tl.constexpr = w1_ptr is not None
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
        x_tile = x_ptr + tl.cast(k, tl.int64) * stride_xk + first * D
        if FUSED:
            hidden = layer_outputs(
                x_tile, x_row, w1_ptr, b1_ptr, s1_ptr, tl.load(t_ptr + k), 0, H, D, layer, seed,
                SALIENCY, COMPUTE, PRECISION, BLOCK_N, BLOCK_H, BLOCK_K,
            )  # fmt: skip
            hidden = activate(hidden, ACTIVATION).to(COMPUTE)
            t = tl.load(t_ptr + K + k)
        else:
            t = tl.load(t_ptr + k)
        m = tl.full((BLOCK_N,), -float("inf"), tl.float32)
        s = tl.zeros((BLOCK_N,), tl.float32)
        z = tl.zeros((BLOCK_N,), tl.float32)
        for c0 in range(0, C, BLOCK_C):
            c = c0 + tl.arange(0, BLOCK_C)
            if FUSED:
                w = masked_weight(
                    w_ptr, s_ptr, t, c0, C, 0, H, layer + 1, seed,
                    SALIENCY, COMPUTE, BLOCK_C, BLOCK_H,
                )  # fmt: skip
                logits = tl.dot(hidden, tl.trans(w), input_precision=PRECISION)
                logits += tl.load(b_ptr + c)[None, :]
            else:
                logits = layer_outputs(
                    x_tile, x_row, w_ptr, b_ptr, s_ptr, t, c0, C, D, layer, seed,
                    SALIENCY, COMPUTE, PRECISION, BLOCK_N, BLOCK_C, BLOCK_K,
                )  # fmt: skip
            is_label = y == c[None, :] if HAS_LABELS else False
            m, s, z = update(m, s, z, logits, is_label, HAS_LABELS)

        log_p, p = finish(m, s, z, HAS_LABELS)
        omega = tl.load(omega_ptr + k + tl.arange(0, 1))
        lc_part, loss_part = chunk_sums(log_p[:, None], p[:, None], omega)
        if HAS_PATH:
            tl.store(path_ptr + tl.cast(k, tl.int64) * stride_path + row, log_p, mask=inside)
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
class MLPHead:
    """A prepared MLP head, made by `prepare`.

    Attributes:
        weights: L tensors (out, in), contiguous.
        biases: L tensors float32, padded to whole tiles; the last one with −∞.
        thresholds: (L, K) float32 on the device.
        saliencies: L float32 tensors of the weights' shapes, or L times None where not GIVEN.
        source: MAGNITUDE, GIVEN or RANDOM of `kernels.saliency`.
        seed: key of the random saliency, as a signed 64-bit number; layer l draws from stream l.
        activation: RELU or GELU of `kernels.layer`.
        fused: whether the last hidden layer stays on the chip.
        tile: block sizes of the launch that ends in the softmax.
        layer_tile: block sizes of the launches before it.
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    thresholds: Tensor
    saliencies: Sequence[Tensor | None]
    source: int
    seed: int
    activation: int
    fused: bool
    tile: Tile
    layer_tile: Tile


def prepare(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    thresholds: Tensor,
    saliencies: Sequence[Tensor] | None,
    seed: int | None,
    activation: str,
    *,
    tile: Tile | None = None,
    fused: bool | None = None,
) -> MLPHead:
    """Prepare an MLP head.

    Args:
        weights: L tensors (out, in), contiguous float32, bfloat16 or float16, of one dtype.
        biases: L tensors (out,) or None.
        thresholds: (L, K) ascending along K.
        saliencies: L tensors like the weights, or None for |w|.
        seed: 64-bit key of a random saliency drawn in the kernel, in place of `saliencies`.
        activation: "relu" or "gelu" (exact, by the error function).
        tile: block sizes of every launch, by default those of `config`.
        fused: whether the last hidden layer stays on the chip, by default where it fits.
    """
    target = target_of(weights[0].device)
    itemsize = weights[0].element_size()
    source = source_of(saliencies, seed)
    scored = source != MAGNITUDE.value
    if fused is None:
        plain = activation == "relu" and not scored
        widest = config.mlp_width(target, itemsize, plain=plain)
        fused = len(weights) > 1 and weights[-1].shape[1] <= widest
    layer_tile = tile or config.product(target, itemsize, scored=scored)
    tile = tile or (config.mlp(target, itemsize) if fused else layer_tile)
    padded = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        last = layer == len(weights) - 1
        if last:
            block = tile.classes
        elif fused and layer == len(weights) - 2:
            block = config.hidden_block(weight.shape[0])
        else:
            block = layer_tile.classes
        fill = -float("inf") if last else 0.0
        padded.append(padded_bias(bias, weight, weight.shape[0], block, fill))
    return MLPHead(
        weights,
        padded,
        thresholds.to(weights[0].device, torch.float32).contiguous(),
        [s.to(torch.float32).contiguous() for s in saliencies or ()] or [None] * len(weights),
        source,
        signed(seed or 0),
        ACTIVATIONS[activation],
        fused,
        tile,
        layer_tile,
    )


def mlp_confidence(
    features: Tensor,
    head: MLPHead,
    labels: Tensor | None,
    path_weights: Tensor,
    return_path: bool,
    *,
    splits: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Score a batch under all sub-models of a prepared MLP head.

    One launch; one more per split-off layer and block of rows, and one for the sums over the path
    where rows alone do not fill the device.

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
    samples = features.shape[0]
    sub_models = head.thresholds.shape[1]
    lc = features.new_empty((samples,), dtype=torch.float32)
    loss = torch.empty_like(lc)
    path = lc.new_empty((sub_models, samples)) if return_path else None
    compute = compute_dtype(features, head.weights[0])
    leading = len(head.weights) - (2 if head.fused else 1)
    rows = max(1, samples)
    if leading:
        widest = max(weight.shape[0] for weight in head.weights[:leading])
        row_bytes = 2 * sub_models * widest * compute.itemsize
        rows = min(rows, max(head.layer_tile.rows, config.HIDDEN_BYTES // row_bytes))
    if labels is not None:
        labels = labels.to(torch.int64).contiguous()
    for start in range(0, samples, rows):
        part = slice(start, start + rows)
        hidden = features[part]
        for layer in range(leading):
            hidden = _hidden_layer(hidden, head, layer, compute)
        _last_layers(
            hidden,
            head,
            leading,
            None if labels is None else labels[part],
            path_weights,
            (lc[part], loss[part], None if path is None else path[:, part]),
            compute,
            splits,
        )
    return lc, loss, path


def _hidden_layer(x: Tensor, head: MLPHead, layer: int, compute: torch.dtype) -> Tensor:
    """Compute one hidden layer of all sub-models: (N, D) or (K, N, D) -> (K, N, E)."""
    samples = x.shape[-2]
    sub_models, width = head.thresholds.shape[1], head.weights[layer].shape[0]
    out = torch.empty((sub_models, samples, width), dtype=compute, device=x.device)
    masked_linear(
        x,
        head.weights[layer],
        head.biases[layer],
        head.saliencies[layer],
        head.thresholds[layer],
        out,
        source=head.source,
        seed=head.seed,
        stream=layer,
        activation=head.activation,
        compute=compute,
        tile=head.layer_tile,
    )
    return out


def _last_layers(
    x: Tensor,
    head: MLPHead,
    layer: int,
    labels: Tensor | None,
    path_weights: Tensor,
    out: tuple[Tensor, Tensor, Tensor | None],
    compute: torch.dtype,
    splits: int | None,
) -> None:
    """Run the layers from `layer` on, the softmax and the sums over the path into `out`."""
    lc, loss, path = out
    samples, depth = x.shape[-2:]
    sub_models = head.thresholds.shape[1]
    weight, width = head.weights[-1], head.weights[-1].shape[1]
    tile = head.tile
    target = target_of(x.device)
    splits = splits or config.splits(target, samples, tile.rows, sub_models)
    parts = empty_parts(splits, sub_models, lc)
    hidden = (None, None, None)
    if head.fused:
        hidden = (head.weights[layer], head.biases[layer], head.saliencies[layer])
    _mlp_confidence_kernel[(triton.cdiv(samples, tile.rows), splits)](
        x,
        *hidden,
        weight,
        head.biases[-1],
        head.saliencies[-1],
        labels,
        head.thresholds[layer:],
        path_weights,
        lc if parts is None else None,
        loss if parts is None else None,
        path,
        parts,
        samples * depth if x.dim() == 3 else 0,
        0 if path is None else path.stride(0),
        head.seed,
        layer,
        samples,
        weight.shape[0],
        depth,
        width,
        sub_models,
        ACTIVATION=head.activation,
        SALIENCY=head.source,
        COMPUTE=TRITON_DTYPES[compute],
        PRECISION=precision(target, compute),
        BLOCK_N=tile.rows,
        BLOCK_C=tile.classes,
        BLOCK_K=tile.depth,
        BLOCK_H=config.hidden_block(width) if head.fused else None,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **config.OPTIONS,
    )
    if parts is not None:
        path_sum(parts, lc, loss)
