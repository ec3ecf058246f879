"""WinogradPlan: a 3 × 3 convolution in less than half of its multiplications, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import contract

if TYPE_CHECKING:
    from torch import Tensor


class WinogradPlan:
    """A 3 × 3 convolution of stride 1, by Winograd's F(2 × 2, 3 × 3).

    16 products give four outputs, in place of 36 (Lavin and Gray, arXiv 1509.09308, section 4.1).
    Sums are float32. In float32 the result is as exact as a direct product's; in bfloat16 the
    transformed inputs and weights are rounded once more, which doubles the rounding error.

    Args:
        weight: (E, C, 3, 3) without groups, float32 or bfloat16 on a CPU.
        bias: (E,) or None.
        padding: zeros on each side, in rows and columns.

    Raises:
        ValueError: another shape, dtype or device; the C++ core was not built.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, padding: tuple[int, int] = (0, 0)
    ) -> None:
        contract.check_tensor("weight", weight, ("E", "C", 3, 3))
        contract.resolve_backend("WinogradPlan", "native", weight.device, weight.dtype)
        if bias is not None:
            contract.check_tensor("bias", bias, (weight.shape[0],), weight)
        self._outputs, self._channels = weight.shape[:2]
        self._dtype = weight.dtype
        self._padding = padding
        # Taps, each with its channels side by side, as channels-last pixels lie.
        taps = weight.permute(0, 2, 3, 1).reshape(self._outputs, 9, self._channels)
        self._plan = contract.native().WinogradPlan(
            contract.host_array(taps),
            contract.host_floats(bias),
            padding,
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
        if x.dtype != self._dtype or x.device.type != "cpu":
            raise ValueError(f"x must be {self._dtype} on a CPU, got {x.dtype} on {x.device}")
        if x.dim() != 4 or x.shape[1] != self._channels:
            raise ValueError(f"x must have shape (N, {self._channels}, H, W), got {tuple(x.shape)}")
        height, width = (
            size + 2 * pad - 2 for size, pad in zip(x.shape[2:], self._padding, strict=True)
        )
        if height < 1 or width < 1:
            raise ValueError(f"x: pixels {tuple(x.shape[2:])} are fewer than the kernel spans")
        pixels = x.permute(0, 2, 3, 1)
        out = x.new_empty((x.shape[0], height, width, self._outputs))
        self._plan.run(
            contract.host_array(pixels), contract.host_array(out), torch.get_num_threads()
        )
        return out.permute(0, 3, 1, 2)
