"""SparseLayerPlan: a linear layer or convolution with few nonzero weights, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import arrays, contract
from lc_engine.ops.layers import pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.layers.pixels import Pair, PlanActivation


def count_kept(weight: Tensor) -> int:
    """Count the weights that are not zero, of a float32 or bfloat16 tensor on a CPU."""
    # In the order in memory. Tensor.dim_order knows it too, but evaluates guards of torch.fx, which
    # takes longer than counting.
    order = weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight
    kept: int = contract.native().count_kept(arrays.host_array(order), torch.get_num_threads())
    return kept


class SparseLayerPlan:
    """A layer as lists of its nonzero weights.

    At density d it costs about d times a dense float32 product, whatever the pattern. The sums are
    float32; inputs and outputs have the dtype of the weight.

    Args:
        weight: (E, D) of a linear layer, or (E, C, kernel height, kernel width) of a convolution
            without groups; float32 or bfloat16 on a CPU.
        bias: (E,) or None.
        stride: of the convolution, in rows and columns, as `torch.nn.Conv2d` has it.
        padding: zeros on each side.
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
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        activation: PlanActivation | None = None,
    ) -> None:
        if weight.dim() not in (2, 4):
            raise ValueError(
                f"weight must have shape (E, D) or (E, C, height, width), got {tuple(weight.shape)}"
            )
        shape = ("E", "D") if weight.dim() == 2 else ("E", "C", "height", "width")
        pixels.check_layer("SparseLayerPlan", weight, bias, shape, activation)
        self._shape = tuple(weight.shape)
        self._dtype = weight.dtype
        self._step = (stride, padding, dilation)
        self._plan = contract.native().SparseLayerPlan(
            arrays.host_array(weight.unsqueeze(1) if weight.dim() == 2 else pixels.taps_of(weight)),
            arrays.host_floats(bias),
            1 if weight.dim() == 2 else self._shape[3],
            stride,
            padding,
            dilation,
            activation,
            torch.get_num_threads(),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (…, D) of a linear layer, (N, C, H, W) of a convolution, which is fastest with
                channels-last pixels.

        Returns:
            (…, E), or (N, E, height, width) with channels-last pixels.

        Raises:
            ValueError: another shape, dtype or device than the weight's.
        """
        pixels.check_input(x, self._dtype)
        if len(self._shape) == 4:
            return pixels.convolve(self._plan, x, self._shape, *self._step)
        outputs, channels = self._shape
        if x.dim() == 0 or x.shape[-1] != channels:
            raise ValueError(f"x must have shape (…, {channels}), got {tuple(x.shape)}")
        rows = x.reshape(1, 1, -1, channels)
        found = pixels.run(self._plan, rows, (1, 1, rows.shape[2]), outputs)
        return found.reshape(*x.shape[:-1], outputs)
