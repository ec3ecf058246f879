"""What the plans of layers share: checks, the layout of weights and pixels, the call into C++."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from lc_engine.ops import arrays, checks, contract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Pair = tuple[int, int]
# Activations that a plan can fuse; "gelu" is by the error function.
PlanActivation = Literal["relu", "relu6", "gelu"]


def check_activation(activation: str | None) -> None:
    """Check the name of an activation.

    Raises:
        ValueError: plans do not have it.
    """
    if activation is not None and activation not in get_args(PlanActivation):
        raise ValueError(
            f"activation must be None or one of {get_args(PlanActivation)}, got {activation!r}"
        )


def check_layer(
    plan: str,
    weight: Tensor,
    bias: Tensor | None,
    shape: Sequence[int | str],
    activation: str | None,
) -> None:
    """Check the arguments of a plan of one layer; `shape` is that of the weight.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    check_activation(activation)
    checks.check_tensor("weight", weight, shape)
    contract.resolve_backend(plan, "native", weight.device, weight.dtype)
    if bias is not None:
        checks.check_tensor("bias", bias, (weight.shape[0],), weight)


def taps_of(weight: Tensor) -> Tensor:
    """Return (E, C, height, width) as (E, taps, C), the order of channels-last pixels."""
    return weight.permute(0, 2, 3, 1).flatten(1, 2)


def check_input(x: Tensor, dtype: torch.dtype) -> None:
    """Check that an input has the dtype and device of a plan's weight.

    Raises:
        ValueError: another dtype or device.
    """
    if x.dtype != dtype or x.device.type != "cpu":
        raise ValueError(f"x must be {dtype} on a CPU, got {x.dtype} on {x.device}")


def output_size(
    x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Pair:
    """Return the rows and columns of a convolution's outputs over (N, C, H, W).

    Raises:
        ValueError: there are none.
    """
    height, width = (
        (size + 2 * pad - spacing * (taps - 1) - 1) // step + 1
        for size, taps, step, pad, spacing in zip(
            x.shape[2:], kernel, stride, padding, dilation, strict=True
        )
    )
    if height < 1 or width < 1:
        raise ValueError(f"x: pixels {tuple(x.shape[2:])} are fewer than the kernel spans")
    return height, width


def run(plan: Any, pixels: Tensor, shape: tuple[int, ...], outputs: int) -> Tensor:
    """Run a plan over (N, H, W, C) pixels, or rows (N, D): E outputs for each of `shape`."""
    out = pixels.new_empty((*shape, outputs))
    plan.run(arrays.host_array(pixels), arrays.host_array(out), torch.get_num_threads())
    return out


def convolve(
    plan: Any,
    x: Tensor,
    weight_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """Run a plan of a convolution with a weight of that shape over (N, C, H, W).

    Returns:
        (N, E, height, width) with channels-last pixels.

    Raises:
        ValueError: another shape.
    """
    outputs, channels, *kernel = weight_shape
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f"x must have shape (N, {channels}, H, W), got {tuple(x.shape)}")
    shape = (x.shape[0], *output_size(x, (kernel[0], kernel[1]), stride, padding, dilation))
    return run(plan, x.permute(0, 2, 3, 1), shape, outputs).permute(0, 3, 1, 2)
