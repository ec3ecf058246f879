"""Pixels: what the plans of layers in C++ share, from (N, C, H, W) in to (N, E, H, W) out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from lc_engine.ops import arrays

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[int, int]
# What a plan may do with its outputs as it writes them; "gelu" is by the error function.
PlanActivation = Literal["relu", "relu6", "gelu"]


def check_activation(activation: str | None) -> None:
    """Check that plans know an activation.

    Raises:
        ValueError: they do not.
    """
    if activation is not None and activation not in get_args(PlanActivation):
        raise ValueError(
            f"activation must be None or one of {get_args(PlanActivation)}, got {activation!r}"
        )


def taps_of(weight: Tensor) -> Tensor:
    """Lay out (E, C, height, width) as (E, taps, C): as channels-last pixels lie."""
    return weight.permute(0, 2, 3, 1).flatten(1, 2)


def check_input(x: Tensor, dtype: torch.dtype) -> None:
    """Check that an input is where and what a plan's weight is.

    Raises:
        ValueError: another dtype or device.
    """
    if x.dtype != dtype or x.device.type != "cpu":
        raise ValueError(f"x must be {dtype} on a CPU, got {x.dtype} on {x.device}")


def places_of(
    x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Pair:
    """Count the rows and columns in which a window finds place in (N, C, H, W).

    Raises:
        ValueError: in none.
    """
    height, width = (
        (size + 2 * pad - apart * (reach - 1) - 1) // step + 1
        for size, reach, step, pad, apart in zip(
            x.shape[2:], kernel, stride, padding, dilation, strict=True
        )
    )
    if height < 1 or width < 1:
        raise ValueError(f"x: pixels {tuple(x.shape[2:])} are fewer than the kernel spans")
    return height, width


def run(plan: Any, pixels: Tensor, shape: tuple[int, ...], outputs: int) -> Tensor:
    """Run a plan over (N, H, W, C) pixels, or rows (N, D): E outputs for each place of `shape`."""
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
    shape = (x.shape[0], *places_of(x, (kernel[0], kernel[1]), stride, padding, dilation))
    return run(plan, x.permute(0, 2, 3, 1), shape, outputs).permute(0, 3, 1, 2)
