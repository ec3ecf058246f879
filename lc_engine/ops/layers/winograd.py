"""WinogradPlan: a 3 × 3 convolution with 16 multiplications for 36, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import arrays, contract
from lc_engine.ops.layers import pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.layers.pixels import Pair, PlanActivation


class WinogradPlan:
    """A 3 × 3 convolution of stride 1, by Winograd's F(2 × 2, 3 × 3).

    16 products for four outputs instead of 36 (Lavin and Gray, arXiv 1509.09308, section 4.1).
    Sums are float32. In float32 the result is as exact as a direct product's; in bfloat16 the
    transformed inputs and weights are rounded once more, which doubles the rounding error. In int8
    they are quantized as in `Int8LinearPlan`, with a scale for the transformed inputs of each four
    outputs at each of the 16 positions, and one for an output's weights there.

    Args:
        weight: (E, C, 3, 3) without groups, float32 or bfloat16 on a CPU.
        bias: (E,) or None.
        padding: zeros on each side, in rows and columns.
        activation: of the outputs, before they are rounded: None, "relu", "relu6" or "gelu".
        int8: whether to multiply in int8: with AVX512-VNNI twice as fast as in bfloat16.

    Raises:
        ValueError: another shape, dtype, device or activation; the C++ core was not built.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        padding: Pair = (0, 0),
        activation: PlanActivation | None = None,
        int8: bool = False,
    ) -> None:
        pixels.check_layer("WinogradPlan", weight, bias, ("E", "C", 3, 3), activation)
        self._shape = tuple(weight.shape)
        self._dtype = weight.dtype
        self._padding = padding
        self._plan = contract.native().WinogradPlan(
            arrays.host_array(pixels.taps_of(weight)),
            arrays.host_floats(bias),
            padding,
            activation,
            int8,
            torch.get_num_threads(),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (N, C, H, W), fastest with channels-last pixels.

        Returns:
            (N, E, height, width) with channels-last pixels.

        Raises:
            ValueError: another shape, dtype or device than the weight's.
        """
        pixels.check_input(x, self._dtype)
        return pixels.convolve(self._plan, x, self._shape, padding=self._padding)
