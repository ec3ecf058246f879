"""apply_thresholds: write one sub-model's weights over the live ones, all tensors in one call.

live_i = pristine_i ⊙ [s_i ≥ t]: a sub-model of arXiv 2402.05356 is a threshold on its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, contract, philox
from lc_engine.ops.custom_op import register_shapes
from lc_engine.ops.saliency import split_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.ops.contract import Backend
    from lc_engine.ops.saliency import SaliencyList


def apply_thresholds(
    pristine: Sequence[Tensor],
    live: Sequence[Tensor],
    threshold: float | Sequence[float],
    saliency: SaliencyList = None,
    *,
    dropped: Sequence[Tensor] | None = None,
    backend: Backend = "auto",
) -> None:
    """Write masked weights over others, in place.

    Args:
        pristine: the unmasked weights, contiguous, float32 or bfloat16 (any float: reference).
        live: tensors of the same shapes, dtypes and device, overwritten.
        threshold: t, one for all tensors (global scope) or one per tensor (layer scope).
        saliency: None for |w|; a list of tensors like `pristine`; or ("random", seed), where
            tensor i draws from Philox stream i.
        dropped: per tensor the int64 row-major indices of weights that tie with the threshold and
            are dropped all the same, on its device.
        backend: "auto" takes the C++ core on a CPU, Triton on a GPU.

    Raises:
        ValueError: naming the argument and the tensor that do not fit.
    """
    if len(pristine) != len(live):
        raise ValueError(f"live must hold {len(pristine)} tensors like pristine, got {len(live)}")
    if not pristine:
        return
    for i, (source, target) in enumerate(zip(pristine, live, strict=True)):
        checks.check_tensor(f"live[{i}]", target, tuple(source.shape), like=source)
        if target.dtype != source.dtype or not (source.is_contiguous() and target.is_contiguous()):
            raise ValueError(f"live[{i}] must be contiguous {source.dtype}, like pristine[{i}]")
    thresholds = (
        [float(threshold)] * len(pristine)
        if isinstance(threshold, (int, float))
        else [float(t) for t in threshold]
    )
    if len(thresholds) != len(pristine):
        raise ValueError(f"threshold must be one number or {len(pristine)}, got {len(thresholds)}")
    scores, seed = split_list(saliency)
    if scores is not None:
        if len(scores) != len(pristine):
            raise ValueError(f"saliency must hold {len(pristine)} tensors, got {len(scores)}")
        for i, (source, score) in enumerate(zip(pristine, scores, strict=True)):
            checks.check_tensor(f"saliency[{i}]", score, tuple(source.shape), like=source)
    if dropped is not None and len(dropped) != len(pristine):
        raise ValueError(f"dropped must hold {len(pristine)} tensors, got {len(dropped)}")
    torch.ops.lc_engine.apply_thresholds(
        list(pristine), list(live), thresholds, scores or [], seed, backend
    )
    for target, index in zip(live, dropped or (), strict=dropped is not None):
        if len(index):
            target.view(-1).index_fill_(0, index, 0)


def _reference(
    pristine: list[Tensor],
    live: list[Tensor],
    thresholds: list[float],
    saliency: list[Tensor],
    seed: int | None,
) -> None:
    for i, (source, target) in enumerate(zip(pristine, live, strict=True)):
        dtype = contract.compute_dtype(source.dtype)
        if seed is not None:
            score = philox.uniform(tuple(source.shape), seed, i, source.device)
        else:
            score = saliency[i] if saliency else source.abs()
        bound = torch.tensor(thresholds[i], dtype=dtype, device=source.device)
        target.copy_(torch.where(score.to(dtype) >= bound, source, 0))


# The schema as text: torch 2.6 cannot read list[Tensor] from the signature.
@torch.library.custom_op(
    "lc_engine::apply_thresholds",
    mutates_args=("live",),
    schema="(Tensor[] pristine, Tensor(a1!)[] live, float[] thresholds, Tensor[] saliency, "
    "SymInt? seed, str backend) -> ()",
)
def _operator(
    pristine: list[Tensor],
    live: list[Tensor],
    thresholds: list[float],
    saliency: list[Tensor],
    seed: int | None,
    backend: str,
) -> None:
    first = pristine[0]
    dtypes = {source.dtype for source in pristine}
    chosen = contract.resolve_backend(
        "apply_thresholds",
        backend,  # type: ignore[arg-type]
        first.device,
        first.dtype if len(dtypes) == 1 else torch.float64,
    )
    if chosen == "triton":
        from lc_engine.kernels.apply_thresholds import apply_thresholds as launch

        launch(pristine, live, thresholds, saliency, seed)
    elif chosen == "native":
        _native(pristine, live, thresholds, saliency, seed)
    else:
        _reference(pristine, live, thresholds, saliency, seed)


def _native(
    pristine: list[Tensor],
    live: list[Tensor],
    thresholds: list[float],
    saliency: list[Tensor],
    seed: int | None,
) -> None:
    contract.native().apply_thresholds(
        [arrays.host_array(source) for source in pristine],
        [arrays.host_array(target) for target in live],
        thresholds,
        [arrays.host_floats(score) for score in saliency],
        seed,
        torch.get_num_threads(),
    )


register_shapes("apply_thresholds", lambda: None)
