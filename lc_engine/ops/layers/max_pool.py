"""max_pool: the maximum of each window of images, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import arrays, checks, contract
from lc_engine.ops.layers import pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.layers.pixels import Pair


def max_pool(
    x: Tensor, kernel: Pair, stride: Pair, padding: Pair = (0, 0), *, relu: bool = False
) -> Tensor:
    """Pool like `torch.nn.functional.max_pool2d`, bit for bit: NaN is larger than any number.

    Args:
        x: (N, C, H, W) float32 or bfloat16 on a CPU, fastest with channels-last pixels.
        kernel: rows and columns of a window.
        stride: from one to the next.
        padding: on each side, at most half of the window; −∞.
        relu: whether to apply ReLU, which commutes with the maximum.

    Returns:
        (N, C, height, width) with channels-last pixels.

    Raises:
        ValueError: another shape, dtype or device; the C++ core was not built.
    """
    checks.check_tensor("x", x, ("N", "C", "H", "W"))
    contract.resolve_backend("max_pool", "native", x.device, x.dtype)
    if min(*kernel, *stride) < 1 or min(padding) < 0:
        raise ValueError(
            f"kernel and stride must be positive and padding not negative, got {kernel}, "
            f"{stride} and {padding}"
        )
    if any(2 * pad > size for pad, size in zip(padding, kernel, strict=True)):
        raise ValueError(f"padding must be at most half of kernel {kernel}, got {padding}")
    size = pixels.output_size(x, kernel, stride, padding)
    out = x.new_empty((x.shape[0], *size, x.shape[1]))
    contract.native().max_pool(
        arrays.host_array(x.permute(0, 2, 3, 1)),
        kernel,
        stride,
        padding,
        relu,
        arrays.host_array(out),
        torch.get_num_threads(),
    )
    return out.permute(0, 3, 1, 2)
