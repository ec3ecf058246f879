"""SparseLayerPlan: a linear layer or convolution of which few weights are left, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import contract

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[int, int]


def count_kept(weight: Tensor) -> int:
    """Count the weights that are not zero, of a float32 or bfloat16 tensor on a CPU."""
    order = weight.permute(weight.dim_order())  # as they lie in memory
    kept: int = contract.native().count_kept(contract.host_array(order), torch.get_num_threads())
    return kept


class SparseLayerPlan:
    """A layer's weights that are not zero, as lists, and the layer's product with any input.

    At density d, whatever the pattern, it costs about d of a dense float32 product. The sums are
    float32; inputs and outputs have the dtype of the weight.

    Args:
        weight: (E, D) of a linear layer, or (E, C, kernel height, kernel width) of a convolution
            without groups; float32 or bfloat16 on a CPU.
        bias: (E,) or None.
        stride: of the convolution, in rows and columns, as `torch.nn.Conv2d` has it.
        padding: zeros on each side.
        dilation: distance of the kernel's points.

    Raises:
        ValueError: another shape, dtype or device; the C++ core was not built.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
    ) -> None:
        if weight.dim() not in (2, 4):
            raise ValueError(
                f"weight must have shape (E, D) or (E, C, height, width), got {tuple(weight.shape)}"
            )
        contract.resolve_backend("SparseLayerPlan", "native", weight.device, weight.dtype)
        if bias is not None:
            contract.check_tensor("bias", bias, (weight.shape[0],), weight)
        self._shape = tuple(weight.shape)
        self._dtype = weight.dtype
        self._height, self._width = self._shape[2:] or (1, 1)
        self._step = tuple(zip(stride, padding, dilation, strict=True))
        # Taps, each with its channels side by side, as channels-last pixels lie.
        taps = weight if weight.dim() == 2 else weight.permute(0, 2, 3, 1)
        self._plan = contract.native().SparseLayerPlan(
            contract.host_array(
                taps.reshape(self._shape[0], self._height * self._width, self._shape[1])
            ),
            contract.host_floats(bias),
            self._width,
            stride,
            padding,
            dilation,
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
        if x.dtype != self._dtype or x.device.type != "cpu":
            raise ValueError(f"x must be {self._dtype} on a CPU, got {x.dtype} on {x.device}")
        outputs, channels = self._shape[:2]
        if len(self._shape) == 2:
            if x.dim() == 0 or x.shape[-1] != channels:
                raise ValueError(f"x must have shape (…, {channels}), got {tuple(x.shape)}")
            rows = x.reshape(1, 1, -1, channels)
            return self._run(rows, (1, 1, rows.shape[2])).reshape(*x.shape[:-1], outputs)
        if x.dim() != 4 or x.shape[1] != channels:
            raise ValueError(f"x must have shape (N, {channels}, H, W), got {tuple(x.shape)}")
        height, width = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, (stride, padding, dilation) in zip(
                x.shape[2:], (self._height, self._width), self._step, strict=True
            )
        )
        if height < 1 or width < 1:
            raise ValueError(f"x: pixels {tuple(x.shape[2:])} are fewer than the kernel spans")
        return self._run(x.permute(0, 2, 3, 1), (x.shape[0], height, width)).permute(0, 3, 1, 2)

    def _run(self, pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
        out = pixels.new_empty((*shape, self._shape[0]))
        self._plan.run(
            contract.host_array(pixels), contract.host_array(out), torch.get_num_threads()
        )
        return out
