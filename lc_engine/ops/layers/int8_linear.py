"""Int8LinearPlan: linear layers in int8, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, contract
from lc_engine.ops.layers import pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.ops.layers.pixels import PlanActivation

MOST_INPUTS = 65536  # whose sums cannot overflow 32 bits


class InputNorm(NamedTuple):
    """A layer norm over the inputs of a layer, (x − mean) / √(variance + ε) · weight + bias.

    Attributes:
        weight: (D,) or None for ones.
        bias: (D,) or None for zeros.
        epsilon: ε.
    """

    weight: Tensor | None
    bias: Tensor | None
    epsilon: float


class Int8LinearPlan:
    """Linear layers, one after the other, with weights and inputs quantized to int8.

    "W8A8" with dynamic quantization, symmetric to ±127. With scales a_i = max_d |x_id| / 127 of
    each row and b_e = max_d |w_ed| / 127 of each output, a layer is

        y_ie = f(a_i b_e Σ_d round(x_id / a_i) round(w_ed / b_e) + bias_e)

    Sums are exact, a row's result depends on no other row, and a weight that is zero stays zero.
    Activations between two layers have the dtype of the weights and stay in the caches. With
    AVX512-VNNI this is twice as fast as bfloat16; on any other processor slower than float32.

    Args:
        weights: of the layers, (E, D) float32 or bfloat16 on a CPU, D the E of the one before and
            at most 65,536.
        biases: of each (E,) or None.
        activations: f of each, None, "relu", "relu6" or "gelu" (to 2e-4).
        norm: of the rows of x before they are quantized, computed in float32.

    Attributes:
        inputs: D of the first layer.
        outputs: E of the last one.
        dtype: of the weights.
        native: the plan in C++.

    Raises:
        ValueError: another number of them, shape, dtype, device or activation; the C++ core was
            not built.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        activations: Sequence[PlanActivation | None],
        norm: InputNorm | None = None,
    ) -> None:
        if not len(weights) == len(biases) == len(activations) > 0:
            raise ValueError(
                "weights, biases and activations must be one each for every layer, got "
                f"{len(weights)}, {len(biases)} and {len(activations)}"
            )
        for activation in activations:
            pixels.check_activation(activation)
        self.dtype = weights[0].dtype
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            before = weights[i - 1].shape[0] if i else "D"
            checks.check_tensor(f"weights[{i}]", weight, ("E", before), weights[0])
            contract.resolve_backend("Int8LinearPlan", "native", weight.device, weight.dtype)
            if bias is not None:
                checks.check_tensor(f"biases[{i}]", bias, (weight.shape[0],), weight)
        self.inputs, self.outputs = weights[0].shape[1], weights[-1].shape[0]
        self.native = contract.native().Int8LinearPlan(
            [arrays.host_array(weight) for weight in weights],
            [arrays.host_floats(bias) for bias in biases],
            list(activations),
            *self._norm(weights[0], norm),
            torch.get_num_threads(),
        )

    @staticmethod
    def _norm(weight: Tensor, norm: InputNorm | None) -> tuple[Any, Any, float]:
        if norm is None:
            return None, None, 0.0
        inputs = weight.shape[1]
        for name, given in (("weight", norm.weight), ("bias", norm.bias)):
            if given is not None:
                checks.check_tensor(f"norm.{name}", given, (inputs,), weight)
        ones, zeros = weight.new_ones(inputs), weight.new_zeros(inputs)
        scale = ones if norm.weight is None else norm.weight
        shift = zeros if norm.bias is None else norm.bias
        return arrays.host_floats(scale), arrays.host_floats(shift), norm.epsilon

    def __call__(self, x: Tensor) -> Tensor:
        """Run the layers.

        Args:
            x: (…, D) in the dtype of the weights.

        Returns:
            (…, E) of the last layer. A row that is not finite gives NaN, and so does an output
            with a weight that is not.

        Raises:
            ValueError: another shape, dtype or device than the weights'.
        """
        pixels.check_input(x, self.dtype)
        if not x.dim() or x.shape[-1] != self.inputs:
            raise ValueError(f"x must have shape (..., {self.inputs}), got {tuple(x.shape)}")
        rows = x.reshape(-1, self.inputs)
        found = pixels.run(self.native, rows, (len(rows),), self.outputs)
        return found.view(*x.shape[:-1], self.outputs)
