"""What all operators share: the result type, the argument checks and the choice of a backend."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from lc_engine.kernels.interpreter import interpreting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    Saliency = Tensor | tuple[Literal["random"], int] | None

Backend = Literal["auto", "reference", "native", "triton"]

_FAST_DTYPES = (torch.float32, torch.bfloat16)
_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class PathScores(NamedTuple):
    """Scores of N samples over the K sub-models of a learning path.

    Attributes:
        lc: (N,) learning complexity Σ ω_k p_k, the mean confidence in the label. High = easy.
        loss: (N,) Σ ω_k (−log p_k), in nats. High = hard.
        log_probs: (K, N) log p_k, sub-model 0 the densest, or None if it was not asked for.
    """

    lc: Tensor
    loss: Tensor
    log_probs: Tensor | None


class FallbackWarning(UserWarning):
    """A slower implementation runs than the machine could offer; the text says which and why."""


@functools.cache
def native() -> Any:
    """Return the compiled module `lc_engine._native`, or None where it was not built."""
    try:
        return importlib.import_module("lc_engine._native")
    except ImportError:
        return None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether a head in bfloat16 is faster there than in float32 (a GPU, AVX512-BF16)."""
    if device.type != "cpu":
        return True
    core = native()
    return core is not None and core.cpu_isa() == "avx512_bf16"


@functools.cache
def warn_once(message: str) -> None:
    """Warn of a fallback the first time that this text comes up."""
    warnings.warn(message, FallbackWarning, stacklevel=5)


def resolve_backend(
    operator: str, backend: Backend, device: torch.device, dtype: torch.dtype
) -> str:
    """Choose the implementation that runs, or say why the one asked for cannot.

    "auto" is native on a CPU and Triton on a GPU for float32 and bfloat16, else the plain-torch
    reference. A fallback from a fast path that the machine should have is said once, by name.

    Raises:
        ValueError: the backend named cannot run these tensors.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}, got {backend!r}")
    if backend == "reference":
        return backend
    if backend == "auto":
        if device.type == "cuda" and dtype in _KERNEL_DTYPES:
            return "triton"
        if device.type == "cpu" and dtype in _FAST_DTYPES:
            if native() is not None:
                return "native"
            warn_once(
                f"lc_engine.{operator}: the C++ core was not built, so the slower plain-torch "
                "reference runs instead. Install a C++ compiler and reinstall lc_engine."
            )
        return "reference"
    if backend == "native":
        if native() is None:
            raise ValueError(
                "backend='native': the C++ core was not built; reinstall with a compiler"
            )
        if device.type != "cpu" or dtype not in _FAST_DTYPES:
            raise ValueError(
                f"backend='native' takes float32 or bfloat16 on a CPU, got {dtype} on {device}"
            )
    elif not (device.type == "cuda" or interpreting()) or dtype not in _KERNEL_DTYPES:
        raise ValueError(
            "backend='triton' takes float32, bfloat16 or float16 on a GPU (or any device with "
            f"TRITON_INTERPRET=1 set before the start), got {dtype} on {device}"
        )
    return backend


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a reference accumulates: float64 stays, all others use float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


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


def check_label_values(labels: Tensor | None, classes: int) -> None:
    """Check that every label names a class.

    Raises:
        ValueError: naming the first row whose label lies outside [0, C).
    """
    if labels is None or labels.numel() == 0:
        return
    outside = (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"labels[{row}] is {int(labels[row])}, but must lie in [0, {classes}): "
            "one index per class of the head"
        )


def check_path_weights(
    path_weights: Tensor | None, sub_models: int, device: torch.device
) -> Tensor:
    """Return ω as a float64 tensor (K,), by default 1/K each.

    Raises:
        ValueError: a wrong shape, or no sub-model at all.
    """
    if sub_models < 1:
        raise ValueError("thresholds must name at least one sub-model, got K = 0")
    if path_weights is None:
        return torch.full((sub_models,), 1.0 / sub_models, dtype=torch.float64, device=device)
    return check_tensor("path_weights", path_weights, (sub_models,)).to(device, torch.float64)


def capturing(tensor: Tensor) -> bool:
    """Tell whether a tensor of a GPU is met while a CUDA graph is captured."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def check_thresholds(name: str, thresholds: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `thresholds` (K,) on the host in `dtype`, that of the saliencies to compare with.

    While a CUDA graph is captured, thresholds on the device stay there and their values are not
    looked at: a graph may not wait for the host.

    Raises:
        ValueError: wrong shape, NaN, or not ascending (sub-model 0 must be the densest).
    """
    check_tensor(name, thresholds, ("K",))
    if capturing(thresholds):
        return thresholds.detach().to(dtype)
    values = thresholds.detach().to("cpu", dtype)
    if bool(values.isnan().any()):
        raise ValueError(f"{name} must not hold NaN")
    if bool((values[1:] < values[:-1]).any()):
        raise ValueError(f"{name} must be ascending: sub-model 0 is the densest")
    return values


def finish(log_probs: Tensor, path_weights: Tensor, return_path: bool) -> PathScores:
    """Reduce log p (K, N) over the path; sums run in float64, as in every backend."""
    omega = path_weights.to(torch.float64).unsqueeze(1)
    logs = log_probs.to(torch.float64)
    # 0 · ∞ must not appear where a sub-model has no weight in the sum.
    loss = torch.where(omega == 0, 0.0, omega * -logs).sum(0)
    lc = (omega * logs.exp()).sum(0)
    dtype = log_probs.dtype
    return PathScores(lc.to(dtype), loss.to(dtype), log_probs if return_path else None)


def label_log_prob(logits: Tensor, labels: Tensor | None) -> Tensor:
    """Take log softmax at the label, or the largest where there is none: (N, C) -> (N,)."""
    log_probs = torch.log_softmax(logits, dim=-1)
    if labels is None:
        return log_probs.amax(-1)
    return log_probs.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)


def host_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Give a host tensor to C++, in C order."""
    return host_view(tensor.contiguous())


def host_view(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Give a host tensor to C++ as it lies, with its strides.

    NumPy has no bfloat16, so those bits cross the border as uint16 and C++ widens them.
    """
    tensor = tensor.detach()
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.numpy()


def host_floats(tensor: Tensor | None) -> np.ndarray[Any, Any] | None:
    """Give a host tensor to C++ as float32; None stays None."""
    return None if tensor is None else host_array(tensor.to(torch.float32))


def run_native(
    plan: Any,
    features: Tensor,
    labels: Tensor | None,
    path_weights: Tensor,
    return_path: bool,
) -> PathScores:
    """Run a prepared native plan on host tensors.

    The sums over the path are NumPy's: torch's threads would spin on beside the core's own.
    """
    omega = path_weights.numpy()[:, None]
    log_probs = np.empty((len(omega), features.shape[-2]), dtype=np.float32)
    plan.run(
        host_array(features),
        None if labels is None else labels.to(torch.int64).contiguous().numpy(),
        log_probs,
        torch.get_num_threads(),
    )
    # 0 · ∞ must not appear where a sub-model has no weight in the sum.
    counted = omega[:, 0] != 0
    logs, omega = (log_probs, omega) if counted.all() else (log_probs[counted], omega[counted])
    # exp in float32, which NumPy has in vectors; the sums are float64's.
    lc = np.multiply(np.exp(logs), omega, dtype=np.float64).sum(0)
    loss = np.multiply(logs, -omega, dtype=np.float64).sum(0)
    return PathScores(
        torch.from_numpy(lc.astype(np.float32)),
        torch.from_numpy(loss.astype(np.float32)),
        torch.from_numpy(log_probs) if return_path else None,
    )


def as_op_result(scores: PathScores) -> tuple[Tensor, Tensor, Tensor]:
    """Give a custom op's result: it may not be None, so an unasked path is an empty tensor."""
    log_probs = scores.log_probs
    return scores.lc, scores.loss, scores.lc.new_empty((0, 0)) if log_probs is None else log_probs


def fake_op_result(
    features: Tensor, samples: int, sub_models: int, return_path: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the shapes and dtype of `as_op_result`, for `torch.compile`."""
    dtype = compute_dtype(features.dtype)
    path = (sub_models, samples) if return_path else (0, 0)
    return (
        features.new_empty((samples,), dtype=dtype),
        features.new_empty((samples,), dtype=dtype),
        features.new_empty(path, dtype=dtype),
    )
