"""torch's fused oneDNN layers: weights packed once, the activation applied as outputs are written.

`torch.compile` calls these operators. They are no stable interface, so `available` compares what
torch has with what this file knows.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from lc_engine.backbone import tuning
from lc_engine.ops import contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lc_engine.backbone.recognize import Activation

    Layer = Callable[[Tensor], Tensor]
    Pointwise = tuple[str, list[float], str]

_WINDOW = "int[2] padding=0, int[2] stride=1, int[2] dilation=1, int groups=1"
_SCHEMAS: Final = {
    "_reorder_linear_weight": "(Tensor self, int? batch_size=None) -> Tensor Y",
    "_linear_pointwise": (
        "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
    ),
    "_reorder_convolution_weight": (
        f"(Tensor self, {_WINDOW}, int[]? input_size=None) -> Tensor Y"
    ),
    "_convolution_pointwise": (
        "(Tensor X, Tensor W, Tensor? B, int[] padding, int[] stride, int[] dilation, int groups, "
        "str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
    ),
}
# oneDNN's names of activations: kind, scalars and algorithm. Its ReLU turns NaN into 0, by which
# rows that are not finite are found; a leaky one, whose slope is far below rounding, does not.
_POINTWISE: dict[Activation | None, Pointwise] = {
    None: ("none", [], ""),
    "relu": ("leaky_relu", [1e-20], ""),
    "gelu": ("gelu", [], "none"),
    "gelu_tanh": ("gelu", [], "tanh"),
    "silu": ("swish", [], ""),
    "hardswish": ("hardswish", [], ""),
}
# Turns NaN into 0 as well: for inputs of which no sum can overflow.
_RELU6: Pointwise = ("hardtanh", [0.0, 6.0], "")
_LARGEST: Final = 1e38
FUSED: Final = tuple(_POINTWISE)


@functools.cache
def available() -> bool:
    """Return whether torch has the operators as this file knows them; say so once if it differs."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    differs = [name for name, schema in _SCHEMAS.items() if _schema(name) != schema]
    if differs:
        contract.warn_once(
            f"lc_engine: torch {torch.__version__} has other operators mkldnn::"
            f"{', '.join(differs)} than lc_engine knows, so convolutions and linear layers pack "
            "their weights in every call, which is slower. Install a version of torch that "
            "lc_engine was tested with."
        )
    return not differs


def multiplies(dtype: torch.dtype) -> bool:
    """Return whether the operators take a dtype on this processor."""
    return available() and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def packed_linear(weight: Tensor, bias: Tensor | None, activation: Activation | None) -> Layer:
    """Return a linear layer followed by one of the activations `FUSED`."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    run, fused = torch.ops.mkldnn._linear_pointwise, _POINTWISE[activation]
    return lambda x: run(x, packed, bias, *fused)


def packed_convolution(module: Any, x: Tensor, activation: Activation | None) -> Layer:
    """Return a convolution, for inputs of about that shape, followed by an activation.

    Args:
        module: a `torch.nn.Conv2d`.
        x: an input.
        activation: one of `FUSED`, or "relu6".
    """
    bias = module.bias
    options = (module.padding, module.stride, module.dilation, module.groups)
    packed = torch.ops.mkldnn._reorder_convolution_weight(module.weight, *options, x.shape)
    run = torch.ops.mkldnn._convolution_pointwise
    if activation != "relu6":
        fused = _POINTWISE[activation]
        return lambda x: run(x, packed, bias, *options, *fused)
    largest = _largest_input(module) if _widens(module) else -1.0

    def clamped(x: Tensor) -> Tensor:
        if _within(x, largest):
            found: Tensor = run(x, packed, bias, *options, *_RELU6)
            return found
        return functional.relu6(run(x, packed, bias, *options, *_POINTWISE[None]), inplace=True)

    return clamped


def _widens(module: Any) -> bool:
    """Return whether looking at the inputs is cheaper than going over the outputs once more."""
    per_input = module.out_channels / (module.stride[0] * module.stride[1]) / module.in_channels
    return bool(per_input >= tuning.CHECKED_OUTPUTS)


def _largest_input(module: Any) -> float:
    """Return an absolute value up to which inputs cannot make any partial sum overflow."""
    products: float = module.weight[0].numel() * _largest(module.weight)
    added = 0.0 if module.bias is None else _largest(module.bias)
    return (_LARGEST - added) / max(products, 1.0)


def _largest(x: Tensor) -> float:
    """Return the largest absolute value, NaN if there is one."""
    low, high = torch.aminmax(x)
    return max(-float(low), float(high))


def _within(x: Tensor, largest: float) -> bool:
    """Return whether inputs lie between ±largest, which NaN does not."""
    if largest < 0:
        return False
    low, high = torch.aminmax(x.permute(0, 2, 3, 1))
    return -largest < float(low) and float(high) < largest


def _schema(name: str) -> str:
    """Return arguments and result of an operator of torch.ops.mkldnn, "" if there is none."""
    operator = getattr(torch.ops.mkldnn, name, None)
    return "" if operator is None else str(operator.default._schema).partition(name)[2]
