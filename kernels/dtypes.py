"""Triton's names for torch's dtypes, and the dtypes of products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton.language as tl

from lc_engine.kernels.interpreter import interpreting

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.kernels.targets import Target

TRITON_DTYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


def compute_dtype(a: Tensor, b: Tensor) -> torch.dtype:
    """Return the dtype of the operands of a product of `a` and `b`.

    Two different dtypes are both converted to float32, which holds either exactly. So is everything
    in the interpreter, whose bfloat16 arithmetic works on the raw bits.
    """
    return a.dtype if a.dtype == b.dtype and not interpreting() else torch.float32


def precision(target: Target, compute: torch.dtype) -> str:
    """Return the `input_precision` of a product.

    float32 on NVIDIA is three TF32 products: each operand is split into two parts of 11 significant
    bits, and only the product of the two small parts (2⁻²² of the whole) is left out, so the tensor
    cores reach the accuracy of float32 accumulation. AMD multiplies float32 exactly.
    """
    return "tf32x3" if compute == torch.float32 and not target.amd else "ieee"
