"""Weights that are stored in 8 bits beside their scales, as the numbers that they stand for.

    w = q · s        s per tensor, per row, or per block of (m, n) weights

q is float8 (e4m3, e5m2) or int8. s is what the fine-grained FP8 of `transformers` and DeepSeek
names `weight_scale_inv`, and compressed-tensors, FBGEMM and ModelOpt `weight_scale`; all of them
multiply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

FLOAT8: Final = frozenset(
    {
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
    }
)
_SCALES: Final = ("_scale_inv", "_scale")
# Of activations and caches: the weights do not depend on them.
_OF_ACTIVATIONS: Final = (
    "activation_scale",
    "input_scale",
    "input_activation_scale_ub",
    "output_scale",
    "k_scale",
    "v_scale",
)
# The bias of an exponent that is stored as a byte (E8M0): s = 2^(byte − 127).
_EXPONENT_BIAS: Final = 127.0


def is_scaled(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict holds weights in float8, or in int8 beside scales."""
    return any(
        value.dtype in FLOAT8 or (value.dtype == torch.int8 and _scale_of(name, state))
        for name, value in state.items()
    )


def dequantized(
    state: Mapping[str, Tensor],
    dtype: torch.dtype,
    blocks: tuple[int, int] | None,
    source: str,
) -> dict[str, Tensor]:
    """Return a state dict with scaled weights multiplied out, and without their scales.

    Args:
        state: tensors by name.
        dtype: of the weights that are multiplied out; the product is taken in float32.
        blocks: (m, n) weights that share a scale, where scales form a grid; None where no grid
            is known.
        source: the file or folder, for errors.

    Raises:
        ValueError: naming a tensor that is not understood.
    """
    plain: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, value in state.items():
        scale_name = _scale_of(name, state)
        if value.dtype not in FLOAT8 and not (value.dtype == torch.int8 and scale_name):
            continue
        weight = value.float()
        if scale_name is not None:
            used.add(scale_name)
            weight = weight * _spread(name, weight, _values(state[scale_name]), blocks, source)
        zero = f"{name}_zero_point"
        if zero in state:
            if state[zero].count_nonzero():
                raise ValueError(
                    f"{source}: {zero} is not zero, and asymmetric weights are not understood: "
                    "dequantize the checkpoint first"
                )
            used.add(zero)
        plain[name] = weight.to(dtype)
    for name, value in state.items():
        if name in plain or name in used or name.endswith(_OF_ACTIVATIONS):
            continue
        if value.element_size() == 1 and value.dtype != torch.bool:
            raise ValueError(
                f"{source}: {name} is {str(value.dtype).removeprefix('torch.')} without a scale "
                "that is understood: dequantize the checkpoint first"
            )
        plain[name] = value
    return {name: plain[name] for name in state if name in plain}


def _scale_of(name: str, state: Mapping[str, Tensor]) -> str | None:
    return next((name + suffix for suffix in _SCALES if name + suffix in state), None)


def _values(scale: Tensor) -> Tensor:
    if scale.dtype == torch.uint8:
        return (scale.float() - _EXPONENT_BIAS).exp2()
    return scale.float()


def _spread(
    name: str, weight: Tensor, scale: Tensor, blocks: tuple[int, int] | None, source: str
) -> Tensor:
    """Return scales that broadcast over a weight (…, M, N)."""
    if scale.numel() == 1:
        return scale.reshape(())
    rows, columns = weight.shape[-2:] if weight.dim() > 1 else (1, len(weight))
    lead = weight.shape[:-2]
    if scale.shape in ((*lead, rows), (*lead, rows, 1)):
        return scale.reshape(*lead, rows, 1)
    if scale.shape in (lead, (*lead, 1, 1)):
        return scale.reshape(*lead, 1, 1)
    if blocks is not None:
        m, n = blocks
        # The last block of a row or column may be cut off: the grid alone does not tell its size.
        if scale.shape == (*lead, -(-rows // m), -(-columns // n)):
            spread = scale.repeat_interleave(m, -2).repeat_interleave(n, -1)
            return spread[..., :rows, :columns]
    raise ValueError(
        f"{source}: the scales of {name} {tuple(weight.shape)} have shape {tuple(scale.shape)}, "
        + (f"which blocks of {blocks} do not explain" if blocks else "and no block size is known")
        + ": dequantize the checkpoint first"
    )
