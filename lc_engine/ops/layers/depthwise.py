"""DepthwisePlan: a depthwise convolution, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from lc_engine.ops import arrays, checks, contract
from lc_engine.ops.layers import pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.layers.pixels import Pair, PlanActivation


class DepthwisePlan:
    """A depthwise convolution: one group per channel, as many outputs as inputs.

    Weights are few and stay float32 for inputs of either dtype: rounded to bfloat16 they would be a
    compact network's largest error. Sums are float32 too.

    Args:
        weight: (C, 1, kernel height, kernel width) float32 or bfloat16 on a CPU.
        bias: (C,) float32 or bfloat16, or None.
        stride: in rows and columns, as `torch.nn.Conv2d` has it.
        padding: zeros on each side; "same" for ⌈inputs / stride⌉ outputs, with the odd zero
            below and to the right, as in TensorFlow.
        dilation: distance of the kernel's taps.
        activation: of the outputs, before they are rounded: None, "relu", "relu6" or "gelu".

    Raises:
        ValueError: another shape, dtype, device or activation; the C++ core was not built.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pair | Literal["same"] = (0, 0),
        dilation: Pair = (1, 1),
        activation: PlanActivation | None = None,
    ) -> None:
        pixels.check_layer("DepthwisePlan", weight, bias, ("C", 1, "height", "width"), activation)
        self._channels = weight.shape[0]
        self._kernel = (weight.shape[2], weight.shape[3])
        self._stride, self._padding, self._dilation = stride, padding, dilation
        self._plan = contract.native().DepthwisePlan(
            arrays.host_floats(weight.squeeze(1)),
            arrays.host_floats(bias),
            stride,
            dilation,
            activation,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (N, C, H, W) float32 or bfloat16, fastest with channels-last pixels.

        Returns:
            (N, C, height, width) in the dtype of x, with channels-last pixels.

        Raises:
            ValueError: another shape, dtype or device.
        """
        checks.check_tensor("x", x, ("N", self._channels, "H", "W"))
        contract.resolve_backend("DepthwisePlan", "native", x.device, x.dtype)
        size, before = self._size(x)
        out = x.new_empty((len(x), *size, self._channels))
        self._plan.run(
            arrays.host_array(x.permute(0, 2, 3, 1)),
            before,
            arrays.host_array(out),
            torch.get_num_threads(),
        )
        return out.permute(0, 3, 1, 2)

    def _size(self, x: Tensor) -> tuple[Pair, Pair]:
        """Return the rows and columns of outputs, and of zeros above and to the left."""
        if self._padding != "same":
            how = (self._kernel, self._stride, self._padding, self._dilation)
            return pixels.output_size(x, *how), self._padding
        rows, columns = (
            _same(*each)
            for each in zip(x.shape[2:], self._kernel, self._stride, self._dilation, strict=True)
        )
        return (rows[0], columns[0]), (rows[1], columns[1])


def _same(size: int, taps: int, step: int, spacing: int) -> Pair:
    """Return the outputs along an axis, and the zeros before the first input."""
    outputs = -(-size // step)
    return outputs, max(0, (outputs - 1) * step + spacing * (taps - 1) + 1 - size) // 2
