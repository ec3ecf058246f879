"""Compute only the first token in the last layers of a transformer with a class token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lc_engine.backbone.consumers import hooked
from lc_engine.backbone.trace import ForwardCalls, TorchCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.backbone.model_copy import ModelCopy

    Forward = Callable[..., Any]


def apply(copy: ModelCopy) -> bool:
    """Find the last layers, and the last attention, of which the classifier sees the first token.

    From the last layer backwards, the other tokens of an output are set to NaN: as long as the
    features stay the same, they do not depend on these. Layers and attention must run once. Sets
    `copy.first_token`, which fast_layers applies, and removes the blocks with such a layer from
    `copy.blocks`. A model with hooks, which may see any token, stays as it is.

    Returns:
        Whether there are such layers.
    """
    producers = copy.producers.values()
    linear: set[nn.Module] = {
        module
        for module in copy.masked
        if isinstance(module, nn.Linear) and module not in producers
    }
    if not linear or any(hooked(module) for module in copy.model.modules()):
        return False
    with torch.no_grad():
        with _Trace(copy.model, linear) as trace:
            expected = copy.tap.features(copy.example)
        copy.first_token = _layers(copy, trace.layers, expected)
        changed: set[nn.Module] = set(copy.first_token)
        if changed and trace.attention and trace.attention.count(trace.attention[-1]) == 1:
            with _Trace(copy.model, linear, spoiled_call=len(trace.attention)):
                same = torch.equal(copy.tap.features(copy.example), expected)
            if same:
                module = trace.attention[-1]
                module.forward = _with_first_query(module.forward)
                changed.add(module)
    copy.blocks = [block for block in copy.blocks if changed.isdisjoint(block.module.modules())]
    return bool(changed)


def on_first_token(forward: Forward) -> Forward:
    """Return the forward of a layer for the first of (N, tokens, D), with zeros for the others."""

    def first(input: Tensor) -> Any:  # noqa: A002 - some models name it, as torch does
        if input.dim() != 3:
            return forward(input)
        token = forward(input[:, :1])
        output = token.new_zeros(len(input), input.shape[1], token.shape[2])
        output[:, :1] = token
        return output

    return first


def _layers(copy: ModelCopy, ran: list[nn.Module], expected: Tensor) -> list[nn.Module]:
    """Return the last layers of which only the first token is seen, the last one first."""
    handles = []
    found: list[nn.Module] = []
    try:
        for layer in reversed(ran):
            handles.append(layer.register_forward_hook(lambda *call: _spoiled(call[2])))
            if ran.count(layer) > 1:
                break
            if not torch.equal(copy.tap.features(copy.example), expected):
                break
            found.append(layer)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _with_first_query(forward: Forward) -> Forward:
    def attending(*args: Any, **kwargs: Any) -> Any:
        with _FirstQuery():
            return forward(*args, **kwargs)

    return attending


class _FirstQuery(TorchCalls):
    """Computes the attention of the first query, with zeros for the others."""

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # A mask has rows for all queries, and the first causal one would be another.
        plain = kwargs.get("attn_mask") is None and not kwargs.get("is_causal")
        if func is not scaled_dot_product_attention or len(args) != 3 or not plain:
            return func(*args, **kwargs)
        query, *others = args
        if query.dim() != 4:
            return func(*args, **kwargs)
        first = func(query[..., :1, :], *others, **kwargs)
        batch, heads, tokens = query.shape[:3]
        # In the layout that models need next: the heads of a token side by side.
        output = first.new_zeros(batch, tokens, heads, first.shape[3]).transpose(1, 2)
        output[:, :, :1] = first
        return output


class _Trace(ForwardCalls):
    """Records the linear layers over tokens that run, and the modules that call attention.

    Args:
        model: whose modules are meant.
        linear: those to record.
        spoiled_call: number of the attention call whose output is spoiled, counted from 1.
    """

    def __init__(self, model: nn.Module, linear: set[nn.Module], spoiled_call: int = 0) -> None:
        super().__init__(model)
        self.layers: list[nn.Module] = []
        self.attention: list[nn.Module] = []
        self._linear = linear
        self._spoiled_call = spoiled_call
        self._inside: list[nn.Module] = []

    def begins(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._inside.append(module)

    def ends(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        self._inside.pop()
        if module in self._linear and output.dim() == 3 and output.shape[1] > 1:
            self.layers.append(module)

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        if func is scaled_dot_product_attention:
            self.attention.append(self._inside[-1])
            if len(self.attention) == self._spoiled_call:
                return _spoiled(output)
        return output


def _spoiled(tokens: Tensor) -> Tensor:
    """Return a copy of (…, tokens, D) with NaN in all tokens but the first."""
    spoiled = tokens.clone()
    spoiled[..., 1:, :] = torch.nan
    return spoiled
