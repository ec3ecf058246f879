"""Checks of the operators' arguments; each names the argument that does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def check_tensor(
    name: str,
    value: Any,
    shape: Sequence[int | str],
    like: Tensor | None = None,
) -> Tensor:
    """Check one floating-point argument against a shape whose letters are free sizes.

    Raises:
        ValueError: naming the argument, what it must be and what it is.
    """
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")
    wanted = "(" + ", ".join(str(size) for size in shape) + ")"
    fits = value.dim() == len(shape) and all(
        isinstance(want, str) or have == want
        for have, want in zip(value.shape, shape, strict=False)
    )
    if not fits:
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(value.shape)}")
    if not value.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor, got {value.dtype}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name} is on {value.device}, but must be on {like.device}")
    return value


def check_labels(labels: Tensor | None, samples: int, device: torch.device) -> None:
    """Check the form of `labels`; `check_label_values` checks what is in them.

    Raises:
        ValueError: not an integer tensor of shape (N,) on the features' device.
    """
    if labels is None:
        return
    if not isinstance(labels, torch.Tensor) or tuple(labels.shape) != (samples,):
        got = tuple(labels.shape) if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise ValueError(f"labels must have shape ({samples},), got {got}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be an integer tensor, got {labels.dtype}")
    if labels.device != device:
        raise ValueError(f"labels is on {labels.device}, but must be on {device}")


def check_label_values(labels: Tensor | None, classes: int) -> Tensor | None:
    """Return labels as int64, all of which name a class.

    Raises:
        ValueError: naming the first row whose label lies outside [0, C).
    """
    if labels is None:
        return None
    # torch does not compare unsigned integers of more than 8 bits.
    wide = labels.to(torch.int64)
    outside = (wide < 0) | (wide >= classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"labels[{row}] is {labels[row].cpu().numpy()}, but must lie in [0, {classes}): "
            "one index per class of the head"
        )
    return wide


def check_path_weights(
    path_weights: Tensor | Sequence[float] | None, sub_models: int, device: torch.device
) -> Tensor:
    """Return ω as a float64 tensor (K,), by default 1/K each.

    Raises:
        ValueError: a wrong shape, or no sub-model at all.
    """
    if sub_models < 1:
        raise ValueError("thresholds must name at least one sub-model, got K = 0")
    if path_weights is None:
        return torch.full((sub_models,), 1.0 / sub_models, dtype=torch.float64, device=device)
    path_weights = as_numbers("path_weights", path_weights)
    check_tensor("path_weights", path_weights, (sub_models,))
    if path_weights.is_meta and device.type != "meta":
        raise ValueError(f"path_weights is on meta, but must be on {device} or the host")
    return path_weights.to(device, torch.float64)


def as_numbers(name: str, value: Tensor | Sequence[float]) -> Tensor:
    """Return a tensor, or numbers as a float64 tensor (K,), before a custom op that takes tensors.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, (list, tuple)) and all(
        isinstance(number, (int, float)) and not isinstance(number, bool) for number in value
    ):
        return torch.tensor(value, dtype=torch.float64)
    kind = type(value).__name__
    raise ValueError(f"{name} must be a tensor or a list of numbers, got {kind}")


def check_kinds(**arguments: Any) -> None:
    """Check that arguments of a custom op are tensors or None, which its schema does not name.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, value in arguments.items():
        if value is not None and not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")


def capturing(tensor: Tensor) -> bool:
    """Return whether a tensor is on a GPU while a CUDA graph is captured."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def check_thresholds(name: str, thresholds: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `thresholds` (K,) on the host in `dtype`, that of the saliencies to compare with.

    While a CUDA graph is captured, thresholds on the device stay there unchecked: a graph must
    not wait for the host.

    Raises:
        ValueError: wrong shape, NaN, or not ascending (sub-model 0 must be the densest).
    """
    check_tensor(name, thresholds, ("K",))
    if thresholds.is_meta:
        raise ValueError(f"{name} is on meta, which holds no values")
    if capturing(thresholds):
        return thresholds.detach().to(dtype)
    values = thresholds.detach().to("cpu", dtype)
    if bool(values.isnan().any()):
        raise ValueError(f"{name} must not hold NaN")
    if bool((values[1:] < values[:-1]).any()):
        raise ValueError(f"{name} must be ascending: sub-model 0 is the densest")
    return values
