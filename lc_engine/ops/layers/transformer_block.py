"""TransformerBlockPlan: a transformer's block in int8, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.ops import contract
from lc_engine.ops.attention import checked_scale
from lc_engine.ops.layers import pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.layers.int8_linear import Int8LinearPlan


class TransformerBlockPlan:
    """A pre-norm block of a transformer, with its linear layers in int8.

        h = x + projection(attention(q, k, v)),   q, k, v = the thirds of qkv(x), in heads
        y = h + mlp(h)

    as in Dosovitskiy et al. (arXiv 2010.11929, equations 2 and 3); the norms are those of `qkv` and
    `mlp`. A thread computes a sample from end to end, so that activations stay in its caches. q, k,
    v, h and y are rounded to the dtype of the weights.

    The attention is `ops.attention`, in int8 too with AVX512-VNNI: Q and K are quantized per row
    and V per column of a head, symmetric to ±127; probabilities are uint8, 255 for the largest that
    a query has among the keys so far, and are divided by the sum of the quantized ones.

    Args:
        qkv: from (D) to (3 · H · E), queries, keys and values one after the other.
        projection: from (H · E) to (D).
        mlp: from (D) to (D).
        heads: H.
        scale: of the scores, positive; 1/√E if None.

    Raises:
        ValueError: layers that do not fit each other.
    """

    def __init__(
        self,
        qkv: Int8LinearPlan,
        projection: Int8LinearPlan,
        mlp: Int8LinearPlan,
        heads: int,
        scale: float | None = None,
    ) -> None:
        dims, mixed = qkv.inputs, projection.inputs
        if heads < 1 or mixed % heads:
            raise ValueError(f"heads must divide the {mixed} inputs of projection, got {heads}")
        for name, plan, inputs, outputs in (
            ("qkv", qkv, dims, 3 * mixed),
            ("projection", projection, mixed, dims),
            ("mlp", mlp, dims, dims),
        ):
            found = (plan.inputs, plan.outputs, plan.dtype)
            if found != (inputs, outputs, qkv.dtype):
                raise ValueError(
                    f"{name} must have {inputs} inputs and {outputs} outputs of {qkv.dtype}, got "
                    f"{found[0]} and {found[1]} of {found[2]}"
                )
        self._dims, self._dtype = dims, qkv.dtype
        self._native = contract.native().TransformerBlockPlan(
            qkv.native, projection.native, mlp.native, heads, checked_scale(scale, mixed // heads)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Run the block.

        Args:
            x: (N, T, D) in the dtype of the weights, at least one token.

        Returns:
            (N, T, D). A sample with a number that is not finite gives NaN in all of its tokens.

        Raises:
            ValueError: another shape, dtype or device.
        """
        pixels.check_input(x, self._dtype)
        if x.dim() != 3 or x.shape[2] != self._dims or not x.shape[1]:
            raise ValueError(
                f"x must have shape (N, T, {self._dims}) with a token, got {tuple(x.shape)}"
            )
        return pixels.run(self._native, x, tuple(x.shape[:2]), self._dims)
