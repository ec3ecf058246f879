"""DepthwisePlan: a convolution of each channel by itself, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from lc_engine.ops import arrays, checks, contract
from lc_engine.ops.layers import pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.layers.pixels import Pair, PlanActivation


class DepthwisePlan:
    """A convolution with as many groups as it has channels in and out.

    Weights, of which there are few, stay float32 whatever the inputs are: in bfloat16 their
    rounding costs a compact network more digits than all else. Sums are float32 too.

    Args:
        weight: (C, 1, kernel height, kernel width) float32 or bfloat16 on a CPU.
        bias: (C,) float32 or bfloat16, or None.
        stride: in rows and columns, as `torch.nn.Conv2d` has it.
        padding: zeros on each side; "same" for as many places as inputs over stride, rounded up,
            with what zeros are odd below and to the right, as TensorFlow does it.
        dilation: distance of the kernel's points.
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
        pixels.check_activation(activation)
        checks.check_tensor("weight", weight, ("C", 1, "height", "width"))
        contract.resolve_backend("DepthwisePlan", "native", weight.device, weight.dtype)
        if bias is not None:
            checks.check_tensor("bias", bias, (weight.shape[0],), weight)
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
        places, before = self._places(x)
        out = x.new_empty((len(x), *places, self._channels))
        self._plan.run(
            arrays.host_array(x.permute(0, 2, 3, 1)),
            before,
            arrays.host_array(out),
            torch.get_num_threads(),
        )
        return out.permute(0, 3, 1, 2)

    def _places(self, x: Tensor) -> tuple[Pair, Pair]:
        """Give the rows and columns of outputs, and of zeros above and to the left."""
        if self._padding != "same":
            how = (self._kernel, self._stride, self._padding, self._dilation)
            return pixels.places_of(x, *how), self._padding
        rows, columns = (
            _same(*each)
            for each in zip(x.shape[2:], self._kernel, self._stride, self._dilation, strict=True)
        )
        return (rows[0], columns[0]), (rows[1], columns[1])


def _same(size: int, reach: int, step: int, apart: int) -> Pair:
    """Give the places along an axis, and the zeros before the first."""
    places = -(-size // step)
    return places, max(0, (places - 1) * step + apart * (reach - 1) + 1 - size) // 2
