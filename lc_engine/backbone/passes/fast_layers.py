"""Layers: those of a working copy, each in the form that is fastest for the weights it has.

Which forms there are is in `layer_forms`. The activation that alone gets a layer's output is
applied by the layer, in each of its forms.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lc_engine import ops
from lc_engine.backbone.layer_kernels import (
    DTYPES,
    OF_PLANS,
    depthwise,
    form_of,
    in_form,
    pads_same,
    then,
)
from lc_engine.backbone.passes.fuse_activations import activation_of, is_row_norm, passed_on
from lc_engine.backbone.passes.transformer_blocks import is_alone
from lc_engine.ops import contract
from lc_engine.ops.int8_linear import InputNorm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lc_engine.backbone.passes.fuse_activations import Activation
    from lc_engine.backbone.passes.transformer_blocks import Block
    from lc_engine.ops.pixels import PlanActivation

    Layer = Callable[..., Any]


class FastLayers:
    """Changes the forward of linear layers and convolutions to the fastest form, per sub-model.

    Args:
        modules: with the weights that are masked, of a copy: they are changed for good. Those of
            other kinds stay as they are.
        activations: by module, the activation that it applies to its outputs, of those that
            `taken` gives.
        chains: by module, the norm or layer before it, which leaves its work to it
            (`fuse_chains`).
        blocks: that run as one where all of their layers are multiplied in 8 bits.
        int8: multiply linear layers, and convolutions without groups, in 8 bits.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        activations: Mapping[nn.Module, nn.Module] | None = None,
        chains: Mapping[nn.Module, nn.Module] | None = None,
        blocks: Sequence[Block] = (),
        *,
        int8: bool = False,
    ) -> None:
        self._int8 = int8
        self._plans: dict[nn.Module, Layer] = {}
        self._joint: dict[nn.Module, Layer] = {}
        self._activations = {
            module: activation_of(activation) for module, activation in (activations or {}).items()
        }
        chains = chains or {}
        self._norms = {layer: norm for layer, norm in chains.items() if is_row_norm(norm)}
        layers = {
            module: self._each_channel(module)
            if is_depthwise(module)
            else self._choosing(module, module.forward)
            for module in taken(modules)
        }
        for module, layer in layers.items():
            module.forward = layer
        for second, first in chains.items():
            if second not in self._norms:
                second.forward = self._joining(first, second, layers)
            first.forward = passed_on
        for block in blocks:
            block.module.forward = self._whole(block, block.module.forward)

    def rewritten(self) -> None:
        """Say that the modules have other weights than before."""
        self._plans.clear()
        self._joint.clear()

    def _choosing(self, module: nn.Module, torchs: Layer) -> Layer:
        """Give the forward of a layer that chooses its form."""
        activation = self._activations.get(module)
        norm = self._norms.get(module)
        normed = nn.Identity() if norm is None else norm.forward
        dense = then(torchs, activation)

        def forward(input: Tensor) -> Any:  # noqa: A002 - some models name it, as torch does
            if not _spreads(module, input):
                return dense(normed(input))
            if module not in self._plans:
                self._plans[module] = ready(input)
            return self._plans[module](input)

        def ready(input: Tensor) -> Layer:  # noqa: A002
            form = form_of(module, input, self._int8)
            if norm is not None and form == "int8" and activation in OF_PLANS:
                return _in_8_bits([module], [activation], norm)
            layer = dense if form == "dense" else in_form(form, module, input, activation)
            return layer if norm is None else lambda x: layer(normed(x))

        return forward

    def _each_channel(self, module: nn.Module) -> Layer:
        """Give the forward of a depthwise convolution, which has one form only."""
        activation = self._activations.get(module)

        def forward(input: Tensor) -> Any:  # noqa: A002
            if module not in self._plans:
                self._plans[module] = depthwise(module, activation)
            return self._plans[module](input)

        return forward

    def _joining(
        self, first: nn.Module, second: nn.Module, layers: Mapping[nn.Module, Layer]
    ) -> Layer:
        """Give the forward of two layers that are one where both are multiplied in 8 bits."""
        pair = (first, second)
        activations = [self._activations.get(layer) for layer in pair]

        def in_turn(input: Tensor) -> Any:  # noqa: A002
            return layers[second](layers[first](input))

        def forward(input: Tensor) -> Any:  # noqa: A002
            if not _spreads(first, input):
                return in_turn(input)
            if second not in self._joint:
                # The forms depend on how many rows there are, which are as many for both.
                joins = self._all_in_8_bits(pair, input)
                joins = joins and all(activation in OF_PLANS for activation in activations)
                self._joint[second] = (
                    _in_8_bits(pair, activations, self._norms.get(first)) if joins else in_turn
                )
            return self._joint[second](input)

        return forward

    def _all_in_8_bits(self, layers: Sequence[nn.Module], x: Tensor) -> bool:
        """Tell whether 8 bits are the fastest form of all these layers, for as many rows."""
        return all(form_of(layer, x, self._int8) == "int8" for layer in layers)

    def _whole(self, block: Block, in_turn: Layer) -> Layer:
        """Give the forward of a block that runs as one where it may."""
        mlp = [self._activations.get(layer) for layer in block.mlp]
        may = all(activation in OF_PLANS for activation in mlp)
        may = may and self._activations.keys().isdisjoint((*block.qkv, block.projection))

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not (may and is_alone(args, kwargs) and _spreads(block.projection, args[0])):
                return in_turn(*args, **kwargs)
            x = args[0]
            if block.module not in self._joint:
                joins = len(x) >= torch.get_num_threads()  # which take a sample each
                joins = joins and self._all_in_8_bits(block.layers, x)
                self._joint[block.module] = ready() if joins else in_turn
            return self._joint[block.module](x)

        def ready() -> Layer:
            (first, second), (one, two) = block.mlp, block.gammas
            return ops.TransformerBlockPlan(
                _in_8_bits([_side_by_side(block.qkv)], [None], block.norms[0]),
                _in_8_bits([_scaled(block.projection, one)], [None], None),
                _in_8_bits([first, _scaled(second, two)], mlp, block.norms[1]),
                *block.attention,
            )

        return forward


def _spreads(module: Any, x: Tensor) -> bool:
    """Tell whether a layer has other forms than torch's for such inputs."""
    # One row per sample gives lists nothing to spread their cost over.
    return x.dim() >= 3 and x.dtype == module.weight.dtype


def _in_8_bits(
    layers: Sequence[Any], activations: Sequence[Activation | None], norm: Any
) -> ops.Int8LinearPlan:
    return ops.Int8LinearPlan(
        [layer.weight for layer in layers],
        [layer.bias for layer in layers],
        cast("list[PlanActivation | None]", activations),
        None if norm is None else InputNorm(norm.weight, norm.bias, norm.eps),
    )


def _side_by_side(layers: Sequence[nn.Linear]) -> Any:
    """Join layers over the same inputs in one that gives all of their outputs."""
    if len(layers) == 1:
        return layers[0]
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor] = [
        weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
        for layer, weight in zip(layers, weights, strict=True)
    ]
    return SimpleNamespace(weight=torch.cat(weights), bias=torch.cat(biases))


def _scaled(layer: Any, by: Tensor | None) -> Any:
    """Give a layer whose outputs are multiplied by a number each."""
    if by is None:
        return layer
    bias = None if layer.bias is None else layer.bias * by
    return SimpleNamespace(weight=layer.weight * by[:, None], bias=bias)


def taken(modules: Sequence[nn.Module], dtype: torch.dtype | None = None) -> list[nn.Module]:
    """List the modules that `FastLayers` changes, once they have that dtype (None: as they are)."""
    if contract.native() is None:
        return []
    return [module for module in modules if _fits(module, dtype)]


def is_depthwise(module: Any) -> bool:
    """Tell whether a module convolves each channel by itself, and `layer_forms.depthwise` can.

    Its weights stay float32, whatever its inputs are.
    """
    core = contract.native()
    # The baseline was not measured.
    if core is None or core.cpu_isa() == "baseline" or not isinstance(module, nn.Conv2d):
        return False
    one_by_one = module.groups == module.in_channels == module.out_channels > 1
    return one_by_one and (_as_torch(module) or pads_same(module))


def _as_torch(module: nn.Conv2d) -> bool:
    return (
        type(module).forward is nn.Conv2d.forward
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _fits(module: nn.Module, dtype: torch.dtype | None) -> bool:
    forward, weight = type(module).forward, getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.device.type != "cpu":
        return False
    if (dtype or weight.dtype) not in DTYPES:
        return False
    if forward is nn.Linear.forward or is_depthwise(module):
        return True
    return isinstance(module, nn.Conv2d) and _as_torch(module)
