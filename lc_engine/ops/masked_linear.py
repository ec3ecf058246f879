"""masked_linear: one linear layer of all K sub-models, each with an input of its own.

    y_k = act(x_k · (W ⊙ [s ≥ t_k])ᵀ + b)

A sub-model of arXiv 2402.05356 is a threshold on the weights: at most one masked copy of W exists
at once, and none in the native form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, choices, contract
from lc_engine.ops import saliency as scores
from lc_engine.ops.custom_op import register_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.ops.contract import Backend
    from lc_engine.ops.saliency import Saliency

LayerActivation = Literal["relu", "gelu"]


def masked_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor | Sequence[float],
    *,
    saliency: Saliency = None,
    activation: LayerActivation | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Run one layer of all K sub-models.

    A forward of such layers can be captured as one CUDA graph, if the thresholds lie on the GPU.

    Args:
        x: (K, M, D) float32, bfloat16, float16 or float64 (reference only). Where all sub-models
            share one input, `x.expand(K, M, D)`: it is not copied.
        weight: (E, D) in the dtype of `x`.
        bias: (E,) or None; never masked.
        thresholds: (K,) ascending. Weight w with saliency s lives in sub-model k while s ≥ t_k.
        saliency: None for |w|, a tensor (E, D), or ("random", seed) for numbers drawn by Philox.
        activation: None, "relu", or "gelu" by the error function.
        backend: "auto" is Triton on a GPU and native on a CPU (float32, bfloat16), where it was
            measured faster than plain torch, "reference", at every size; but bfloat16 on a CPU with
            AMX is torch's.

    Returns:
        (K, M, E) in the dtype of `x`, accumulated in float32 (float64 for float64).

    Raises:
        ValueError: naming the argument that does not fit.
    """
    tensor, seed = scores.split(saliency)
    checks.check_kinds(x=x, weight=weight, bias=bias)
    thresholds = checks.as_numbers("thresholds", thresholds)
    result: Tensor = torch.ops.lc_engine.masked_linear(
        x, weight, bias, thresholds, tensor, seed, activation, backend
    )
    return result


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None,
    activation: str | None,
) -> Tensor:
    """Check the arguments; return the thresholds, in the dtype of the saliencies."""
    checks.check_tensor("weight", weight, ("E", "D"))
    checks.check_tensor("x", x, ("K", "M", weight.shape[1]), like=weight)
    if weight.dtype != x.dtype:
        raise ValueError(f"weight is {weight.dtype} but x is {x.dtype}: give both in one dtype")
    if bias is not None:
        checks.check_tensor("bias", bias, (weight.shape[0],), like=weight)
    if saliency is not None:
        checks.check_tensor("saliency", saliency, tuple(weight.shape), like=weight)
    if activation is not None and activation not in get_args(LayerActivation):
        raise ValueError(
            f"activation must be None or one of {get_args(LayerActivation)}, got {activation!r}"
        )
    checks.check_tensor("thresholds", thresholds, (x.shape[0],))
    return checks.check_thresholds("thresholds", thresholds, contract.compute_dtype(x.dtype))


def _reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None,
    activation: str | None,
    dtype: torch.dtype,
) -> Tensor:
    """Compute one sub-model after the other, multiplied in a dtype.

    One masked copy of the weight exists at a time.
    """
    wide = weight.to(contract.compute_dtype(x.dtype))  # as the thresholds are
    shift = None if bias is None else bias.to(dtype)
    out = x.new_empty((*x.shape[:2], weight.shape[0]))
    for k, threshold in enumerate(thresholds.to(x.device)):
        layer = torch.nn.functional.linear(
            x[k].to(dtype), scores.keep(wide, saliency, threshold).to(dtype), shift
        )
        if activation == "relu":
            layer = layer.relu_()
        elif activation == "gelu":
            layer = torch.nn.functional.gelu(layer)
        out[k] = layer
    return out


@torch.library.custom_op("lc_engine::masked_linear", mutates_args=())
def _operator(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None,
    seed: int | None,
    activation: str | None,
    backend: str,
) -> Tensor:
    bounds = _check(x, weight, bias, thresholds, saliency, activation)
    on_tiles = choices.multiplies_on_tiles(x.dtype, x.device, backend)
    chosen = contract.resolve_backend(
        "masked_linear",
        backend,  # type: ignore[arg-type]
        x.device,
        x.dtype,
    )
    if chosen == "triton":
        return _triton(x, weight, bias, bounds, saliency, seed, activation)
    if chosen == "native" and not on_tiles:
        return _native(x, weight, bias, bounds, saliency, seed, activation)
    score = scores.drawn(weight, saliency, seed)
    dtype = x.dtype if on_tiles else contract.compute_dtype(x.dtype)
    return _reference(x, weight, bias, bounds, score, activation, dtype)


def _native(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None,
    seed: int | None,
    activation: str | None,
) -> Tensor:
    """Run all sub-models in C++; no masked copy of the weight is made."""
    out = x.new_empty((*x.shape[:2], weight.shape[0]))
    if weight.shape[0] == 0:
        return out
    contract.native().masked_linear(
        arrays.host_array(scores.shared(x)),
        arrays.host_array(weight),
        arrays.host_floats(bias),
        arrays.host_floats(thresholds),
        arrays.host_floats(saliency),
        None if seed is None else seed & scores.SEED_BITS,
        activation,
        arrays.host_array(out),
        torch.get_num_threads(),
    )
    return out


def _triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None,
    seed: int | None,
    activation: str | None,
) -> Tensor:
    """Run all sub-models in one launch."""
    from lc_engine.kernels import config, masked_linear
    from lc_engine.kernels.bias import padded_bias
    from lc_engine.kernels.dtypes import compute_dtype
    from lc_engine.kernels.layer import ACTIVATIONS
    from lc_engine.kernels.saliency import signed, source_of
    from lc_engine.kernels.targets import target_of

    weight = weight.contiguous()
    target, scored = target_of(x.device), saliency is not None or seed is not None
    tile = config.product(target, x.element_size(), scored=scored)
    out = x.new_empty((*x.shape[:2], weight.shape[0]))
    masked_linear.masked_linear(
        scores.shared(x),
        weight,
        padded_bias(bias, weight, weight.shape[0], tile.classes, 0.0),
        None if saliency is None else saliency.to(torch.float32).contiguous(),
        thresholds.to(x.device, torch.float32),
        out,
        source=source_of(saliency, seed),
        seed=signed(seed or 0),
        stream=0,
        activation=ACTIVATIONS[activation],
        compute=compute_dtype(x, weight),
        tile=tile,
    )
    return out


register_shapes("masked_linear", lambda x, weight: x.new_empty((*x.shape[:2], weight.shape[0])))
