"""Layers: those of a working copy, each in the form that is fastest for the weights it has.

A dense product takes as long at 2 % of its weights as at all of them. On a CPU, layers with few
weights left go through lists of these (`ops.SparseLayerPlan`), 3 × 3 convolutions with more through
fewer multiplications (`ops.WinogradPlan`), and all others through oneDNN with weights that it has
packed before. What is left is torch's. The activation that alone gets a layer's output is applied
by the layer, in each of its forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from lc_engine import ops
from lc_engine.fusing import activation_of
from lc_engine.ops import contract
from lc_engine.ops.pixels import PlanActivation
from lc_engine.ops.sparse_layer import count_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lc_engine.fusing import Activation

# Density below which lists beat a dense product, as measured on Zen 4: oneDNN's in bfloat16 takes
# half the time of one in float32, lists two thirds; Winograd's takes 0.6 of oneDNN's, and packed
# weights 0.95. What a list costs whatever its length, gathering inputs and writing outputs, weighs
# more the fewer outputs and inputs there are.
_DENSEST = {torch.float32: 0.7, torch.bfloat16: 0.55}
_DENSEST_BESIDE_WINOGRAD = {torch.float32: 0.42, torch.bfloat16: 0.33}
_PER_OUTPUT_AND_INPUT = 8.0
# Below these channels, and tiles of 2 × 2 outputs, transforms cost more than products they save.
_FEWEST_CHANNELS = 32
_FEWEST_TILES = 64
# Rows, or pixels, for which weights are worth packing.
_FEWEST_ROWS = 256
# What oneDNN calls activations: kind, numbers and algorithm. Its ReLU and ReLU6 make 0 of a NaN, by
# which a row that is not finite is told, so they are not among these.
Pointwise = tuple[str, list[float], str]
_POINTWISE: dict[Activation | None, Pointwise] = {
    None: ("none", [], ""),
    "gelu": ("gelu", [], "none"),
    "gelu_tanh": ("gelu", [], "tanh"),
}
_OF_PLANS = get_args(PlanActivation)
_IN_TORCH: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "relu6": lambda x: x.clamp_(0, 6),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


class FastLayers:
    """Changes the forward of linear layers and convolutions to the fastest form, per sub-model.

    Args:
        modules: with the weights that are masked, of a copy: they are changed for good. Those of
            other kinds stay as they are.
        activations: by module, the activation that it applies to its outputs, of those that
            `taken` gives.
    """

    def __init__(
        self, modules: Sequence[nn.Module], activations: Mapping[nn.Module, nn.Module] | None = None
    ) -> None:
        self._plans: dict[nn.Module, Callable[[Tensor], Any]] = {}
        for module in taken(modules):
            activation = (activations or {}).get(module)
            name = None if activation is None else activation_of(activation)
            module.forward = self._choosing(module, module.forward, name)

    def rewritten(self) -> None:
        """Say that the modules have other weights than before."""
        self._plans.clear()

    def _choosing(
        self, module: nn.Module, torchs: Callable[..., Any], activation: Activation | None
    ) -> Callable[..., Any]:
        dense = _then(torchs, activation)

        def forward(input: Tensor) -> Any:  # noqa: A002 - some models name it, as torch does
            # One row per sample gives lists nothing to spread their cost over.
            if input.dim() < 3 or input.dtype != module.weight.dtype:
                return dense(input)
            if module not in self._plans:
                self._plans[module] = _plan(module, input, activation) or dense
            return self._plans[module](input)

        return forward


def taken(modules: Sequence[nn.Module], dtype: torch.dtype | None = None) -> list[nn.Module]:
    """List the modules that `FastLayers` changes, once they have that dtype (None: as they are)."""
    if contract.native() is None:
        return []
    return [module for module in modules if _fits(module, dtype)]


def _fits(module: nn.Module, dtype: torch.dtype | None) -> bool:
    forward, weight = type(module).forward, getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.device.type != "cpu":
        return False
    if (dtype or weight.dtype) not in _DENSEST:
        return False
    if forward is nn.Linear.forward:
        return True
    return (
        isinstance(module, nn.Conv2d)
        and forward is nn.Conv2d.forward
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _then(
    layer: Callable[[Tensor], Tensor], activation: Activation | None
) -> Callable[[Tensor], Tensor]:
    """Give a layer followed by an activation in torch."""
    if activation is None:
        return layer
    activate = _IN_TORCH[activation]
    return lambda x: activate(layer(x))


def _plan(
    module: Any, x: Tensor, activation: Activation | None
) -> Callable[[Tensor], Tensor] | None:
    """Choose the form of a layer for inputs of that shape; None is torch's."""
    weight = module.weight
    outputs, inputs = weight.shape[0], weight[0].numel()
    form = _dense_form(module, x)
    densest = (_DENSEST_BESIDE_WINOGRAD if form == "winograd" else _DENSEST)[weight.dtype]
    densest -= _PER_OUTPUT_AND_INPUT * (1 / outputs + 1 / inputs)
    linear = isinstance(module, nn.Linear)
    # Below 16 channels a row of inputs is shorter than a vector.
    lists = linear or (module.groups == 1 and module.in_channels >= 16)
    if lists and count_kept(weight) < densest * weight.numel():
        form = "lists"
    if form == "dense":
        return None
    known = _POINTWISE if form == "packed" else _OF_PLANS
    own, after = (activation, None) if activation in known else (None, activation)
    return _then(_in_form(form, module, x, own), after)


def _in_form(
    form: str, module: Any, x: Tensor, activation: Activation | None
) -> Callable[[Tensor], Tensor]:
    weight, bias = module.weight, module.bias
    linear = isinstance(module, nn.Linear)
    if form == "packed":
        how = _POINTWISE[activation]
        return _packed(weight, bias, how) if linear else _packed_convolution(module, x, how)
    own = cast("PlanActivation | None", activation)
    if form == "winograd":
        return ops.WinogradPlan(weight, bias, padding=module.padding, activation=own)
    if linear:
        return ops.SparseLayerPlan(weight, bias, activation=own)
    return ops.SparseLayerPlan(
        weight,
        bias,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        activation=own,
    )


def _dense_form(module: Any, x: Tensor) -> str:
    """Name the fastest form with all weights."""
    packs = torch.backends.mkldnn.is_available() and (  # type: ignore[no-untyped-call]
        x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    rows = x.numel() // max(1, x.shape[-1] if isinstance(module, nn.Linear) else x.shape[1])
    form = "packed" if packs and rows >= _FEWEST_ROWS else "dense"
    if isinstance(module, nn.Linear):
        return form
    if x.dim() != 4:
        return "dense"
    if module.kernel_size != (3, 3) or module.stride != (1, 1) or module.dilation != (1, 1):
        return form
    if module.groups != 1 or min(module.in_channels, module.out_channels) < _FEWEST_CHANNELS:
        return form
    tiles, padding = len(x), cast("tuple[int, int]", module.padding)
    for size, pad in zip(x.shape[2:], padding, strict=True):
        tiles *= (size + 2 * pad - 1) // 2
    return "winograd" if tiles >= _FEWEST_TILES else form


def _packed(
    weight: Tensor, bias: Tensor | None, activation: Pointwise
) -> Callable[[Tensor], Tensor]:
    """Pack a linear layer's weights once, as `torch.compile` does for a CPU."""
    ready = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, ready, bias, *activation)


def _packed_convolution(
    module: Any, x: Tensor, activation: Pointwise
) -> Callable[[Tensor], Tensor]:
    """Do the same for a convolution, and inputs of about that shape."""
    how = (module.padding, module.stride, module.dilation, module.groups)
    ready = torch.ops.mkldnn._reorder_convolution_weight(module.weight, *how, x.shape)
    convolve = torch.ops.mkldnn._convolution_pointwise
    return lambda x: convolve(x, ready, module.bias, *how, *activation)
