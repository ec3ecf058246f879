"""Int8ConvolutionPlan: a convolution in int8, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import arrays, contract
from lc_engine.ops.layers import pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.layers.pixels import Pair, PlanActivation


class Int8ConvolutionPlan:
    """A convolution with weights and inputs quantized to int8.

    As in `Int8LinearPlan`, with one scale for the inputs of a band: the fewest rows of outputs,
    counted from the top of an image, that have at least 48 outputs. An image's result depends on no
    other image. For 3 × 3 convolutions of stride 1 `WinogradPlan` is faster.

    Args:
        weight: (E, C, kernel height, kernel width) without groups, float32 or bfloat16 on a CPU, of
            at most 65,536 to an output.
        bias: (E,) or None.
        stride: in rows and columns, as `torch.nn.Conv2d` has it.
        padding: zeros on each side.
        dilation: distance of the kernel's taps.
        activation: of the outputs: None, "relu", "relu6" or "gelu" (to 2e-4).

    Raises:
        ValueError: another shape, dtype, device or activation; the C++ core was not built.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        activation: PlanActivation | None = None,
    ) -> None:
        pixels.check_layer(
            "Int8ConvolutionPlan", weight, bias, ("E", "C", "height", "width"), activation
        )
        self._shape = tuple(weight.shape)
        self._dtype = weight.dtype
        self._step = (stride, padding, dilation)
        self._plan = contract.native().Int8ConvolutionPlan(
            arrays.host_array(pixels.taps_of(weight)),
            arrays.host_floats(bias),
            self._shape[3],
            *self._step,
            activation,
            torch.get_num_threads(),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (N, C, H, W), fastest with channels-last pixels.

        Returns:
            (N, E, height, width) with channels-last pixels. A band over pixels that are not finite
            gives NaN, and so does an output with a weight that is not.

        Raises:
            ValueError: another shape, dtype or device than the weight's.
        """
        pixels.check_input(x, self._dtype)
        return pixels.convolve(self._plan, x, self._shape, *self._step)
