"""rms_norm: x / √(mean x² + ε) · weight over the last dim, on a CPU.

Zhang and Sennrich, "Root mean square layer normalization", arXiv 1910.07467, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import arrays, checks, contract

if TYPE_CHECKING:
    from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / √(mean x² + ε) · weight, computed in float32 and rounded once.

    Args:
        x: (…, D) float32 or bfloat16 on a CPU.
        weight: (D,).
        eps: ε.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: another shape, dtype or device; the C++ core was not built.
    """
    contract.resolve_backend("rms_norm", "native", x.device, x.dtype)
    checks.check_tensor("weight", weight, (x.shape[-1],), like=x)
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    contract.native().rms_norm(
        arrays.host_array(rows),
        arrays.host_floats(weight),
        eps,
        arrays.host_array(out),
        torch.get_num_threads(),
    )
    return out.view(x.shape)
