"""Run each masked layer with the kernel that is fastest for its present weights.

Which kernels there are is in `layer_kernels`. Layers apply the activations that were fused into
them, and do the work of their producers and of whole blocks where int8 is fastest for all of them.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lc_engine import ops
from lc_engine.backbone import tuning
from lc_engine.backbone.layer_kernels import (
    PLAN_ACTIVATIONS,
    Choice,
    build,
    build_depthwise,
    choice,
    fastest_kernel,
    followed_by,
    pad_same,
)
from lc_engine.backbone.passes.fuse_mlp import pass_through
from lc_engine.backbone.passes.transformer_blocks import takes_tokens_only
from lc_engine.backbone.recognize import activation_of, is_depthwise, is_layer_norm, pads_same
from lc_engine.ops.layers.int8_linear import InputNorm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lc_engine.backbone.model_copy import Block, ModelCopy
    from lc_engine.backbone.recognize import Activation
    from lc_engine.ops.layers.pixels import PlanActivation

    Forward = Callable[..., Any]


def apply(copy: ModelCopy) -> bool:
    """Replace the forward of `copy.layers`, of their producers and of `copy.blocks`.

    A forward builds its kernel when it first runs, and keeps it in `copy.kernels`.

    Returns:
        Whether there are any.
    """
    forwards = _Forwards(copy)
    layers = {
        module: forwards.depthwise(module) if is_depthwise(module) else forwards.layer(module)
        for module in copy.layers
    }
    for module, forward in layers.items():
        module.forward = forward
    for second, first in copy.producers.items():
        if not is_layer_norm(first):
            second.forward = forwards.pair(first, second, layers[first], layers[second])
        first.forward = pass_through
    for block in copy.blocks:
        block.module.forward = forwards.block(block)
    return bool(layers)


class _Forwards:
    """Returns forwards that choose a kernel when they first run with the present weights."""

    def __init__(self, copy: ModelCopy) -> None:
        self._int8 = copy.int8 and tuning.INT8_LAYERS[tuning.kind()]
        self._int8_width = tuning.INT8_BLOCK_WIDTH[tuning.kind()] if copy.int8 else 0
        self._kernels = copy.kernels
        self._activations = {
            module: activation_of(activation) for module, activation in copy.activations.items()
        }
        self._norms = {layer: norm for layer, norm in copy.producers.items() if is_layer_norm(norm)}

    def layer(self, module: Any) -> Forward:
        """Return the forward of a layer, with the norm or the padding before it."""
        activation = self._activations.get(module)
        norm, same = self._norms.get(module), pads_same(module)
        before: Forward | None = None if norm is None else norm.forward
        own: Forward = module.forward
        if same:
            before, own = partial(pad_same, module), partial(nn.Conv2d.forward, module)
        int8 = self._int8 and not same  # where it was not measured
        dense = _after(before, followed_by(own, activation))
        choices: dict[torch.Size, Choice] = {}

        def forward(input: Tensor) -> Any:  # noqa: A002 - some models name it, as torch does
            if not _has_many_rows(module, input):
                return dense(input)
            if module not in self._kernels:
                self._kernels[module] = kernel(input)
            return self._kernels[module](input)

        def kernel(x: Tensor) -> Forward:
            # Only its shape and dtype matter, which a norm leaves.
            given = pad_same(module, x.to("meta")) if same else x
            if x.shape not in choices:
                choices[x.shape] = choice(module, given, int8)
            fastest = choices[x.shape].kernel(module.weight)
            if norm is not None and fastest == "int8" and activation in PLAN_ACTIVATIONS:
                return _int8_plan([module], [activation], norm)
            if fastest == "dense":
                return dense
            return _after(before, build(fastest, module, given, activation))

        return forward

    def depthwise(self, module: nn.Module) -> Forward:
        """Return the forward of a depthwise convolution, which has one kernel only."""
        activation = self._activations.get(module)

        def forward(input: Tensor) -> Any:  # noqa: A002
            if module not in self._kernels:
                self._kernels[module] = build_depthwise(module, activation)
            return self._kernels[module](input)

        return forward

    def pair(
        self, first: nn.Module, second: nn.Module, run_first: Forward, run_second: Forward
    ) -> Forward:
        """Return the forward of two linear layers, in one call if int8 is fastest for both."""
        pair = (first, second)
        activations = [self._activations.get(layer) for layer in pair]

        def one_by_one(x: Tensor) -> Any:
            return run_second(run_first(x))

        def forward(input: Tensor) -> Any:  # noqa: A002
            if not _has_many_rows(first, input):
                return one_by_one(input)
            if pair not in self._kernels:
                # Kernels depend on the number of rows, which is the same for both layers.
                joins = self._int8 and _all_int8(pair, input)
                joins = joins and all(activation in PLAN_ACTIVATIONS for activation in activations)
                self._kernels[pair] = (
                    _int8_plan(pair, activations, self._norms.get(first)) if joins else one_by_one
                )
            return self._kernels[pair](input)

        return forward

    def block(self, block: Block) -> Forward:
        """Return the forward of a block, in one call if int8 is fastest for all of its layers."""
        one_by_one = block.module.forward
        mlp = [self._activations.get(layer) for layer in block.mlp]
        joins = all(activation in PLAN_ACTIVATIONS for activation in mlp)
        joins = joins and self._activations.keys().isdisjoint((*block.qkv, block.projection))
        joins = joins and block.projection.out_features <= self._int8_width

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not (
                joins
                and takes_tokens_only(args, kwargs)
                and _has_many_rows(block.projection, args[0])
            ):
                return one_by_one(*args, **kwargs)
            x = args[0]
            if block.module not in self._kernels:
                # Each thread takes whole samples.
                whole = len(x) >= torch.get_num_threads() and _all_int8(block.layers, x)
                self._kernels[block.module] = plan() if whole else one_by_one
            return self._kernels[block.module](x)

        def plan() -> Forward:
            (first, second), (gamma_1, gamma_2) = block.mlp, block.gammas
            return ops.TransformerBlockPlan(
                _int8_plan([_concatenated(block.qkv)], [None], block.norms[0]),
                _int8_plan([_scaled(block.projection, gamma_1)], [None], None),
                _int8_plan([first, _scaled(second, gamma_2)], mlp, block.norms[1]),
                *block.attention,
            )

        return forward


def _after(before: Forward | None, layer: Forward) -> Forward:
    return layer if before is None else lambda x: layer(before(x))


def _all_int8(layers: Sequence[nn.Module], x: Tensor) -> bool:
    """Return whether int8 is the fastest kernel of all these layers, for as many rows."""
    return all(fastest_kernel(layer, x, int8=True) == "int8" for layer in layers)


def _has_many_rows(module: Any, x: Tensor) -> bool:
    """Return whether kernels other than torch's suit an input: not for one row per sample."""
    return x.dim() >= 3 and x.dtype == module.weight.dtype


def _int8_plan(
    layers: Sequence[Any], activations: Sequence[Activation | None], norm: Any
) -> ops.Int8LinearPlan:
    return ops.Int8LinearPlan(
        [layer.weight for layer in layers],
        [layer.bias for layer in layers],
        cast("list[PlanActivation | None]", activations),
        None if norm is None else InputNorm(norm.weight, norm.bias, norm.eps),
    )


def _concatenated(layers: Sequence[nn.Linear]) -> Any:
    """Return one layer with the outputs of layers over the same inputs, side by side."""
    if len(layers) == 1:
        return layers[0]
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor] = [
        weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
        for layer, weight in zip(layers, weights, strict=True)
    ]
    return SimpleNamespace(weight=torch.cat(weights), bias=torch.cat(biases))


def _scaled(layer: Any, gamma: Tensor | None) -> Any:
    """Return a layer whose outputs are multiplied by γ (D,)."""
    if gamma is None:
        return layer
    bias = None if layer.bias is None else layer.bias * gamma
    return SimpleNamespace(weight=layer.weight * gamma[:, None], bias=bias)
