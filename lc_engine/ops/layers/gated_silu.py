"""gated_silu: silu(gate) · up, the gated activation of SwiGLU, on a CPU.

Shazeer, "GLU variants improve Transformer", arXiv 2002.05202, section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import arrays, checks, contract

if TYPE_CHECKING:
    from torch import Tensor


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """Return gate / (1 + e^−gate) · up, computed in float32 and rounded once.

    Args:
        gate: of any shape, float32 or bfloat16 on a CPU.
        up: like it.

    Returns:
        A tensor like them.

    Raises:
        ValueError: another shape, dtype or device; the C++ core was not built.
    """
    contract.resolve_backend("gated_silu", "native", gate.device, gate.dtype)
    checks.check_tensor("up", up, tuple(gate.shape), like=gate)
    if up.dtype != gate.dtype:
        raise ValueError(f"up is {up.dtype} but gate is {gate.dtype}: give both in one dtype")
    out = torch.empty_like(gate, memory_format=torch.contiguous_format)
    contract.native().gated_silu(
        arrays.host_array(gate),
        arrays.host_array(up),
        arrays.host_array(out),
        torch.get_num_threads(),
    )
    return out
