"""Find transformer blocks that can run in one call, by what they compute.

A block whose layers run one after the other writes what lies between them for a whole batch, which
fits no cache.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice, permutations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lc_engine.backbone.consumers import hooked
from lc_engine.backbone.model_copy import Attention, Block
from lc_engine.backbone.recognize import is_layer_norm
from lc_engine.backbone.trace import ForwardCalls, alike
from lc_engine.ops.attention import checked_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lc_engine.backbone.model_copy import ModelCopy


def apply(copy: ModelCopy) -> bool:
    """Find the blocks of a model that multiplies in int8, in one forward.

    A module is a block if nothing else with weights ran in it, if it adds to its input what the
    formula of `Block` adds, if it ran once, and if none of its modules has hooks. Sets
    `copy.blocks`, which fast_layers applies.

    Returns:
        Whether there are blocks.
    """
    if not copy.int8 or copy.dropout:
        return False
    if not any(isinstance(layer, nn.Linear) for layer in copy.layers):
        return False
    with torch.no_grad(), _Trace(copy.model) as trace:
        copy.tap.run(copy.example)
    for module, ran in trace.inside.items():
        if trace.calls[module] > 1 or any(map(hooked, module.modules())):
            continue
        x, output = trace.seen[module]
        with torch.no_grad():
            same = (
                block
                for block in _candidates(module, ran, copy)
                if alike([_added(block, x)], [output - x])
            )
            copy.blocks.extend(islice(same, 1))
    return bool(copy.blocks)


def _candidates(module: nn.Module, ran: list[Any], copy: ModelCopy) -> Iterator[Block]:
    """Yield the blocks that a module may be, from what ran in it, in order."""
    calls = [i for i, one in enumerate(ran) if isinstance(one, Attention)]
    if len(calls) != 1 or calls[0] not in (2, 4):
        return
    norm, *qkv = ran[: calls[0]]
    attention, *after = ran[calls[0] :]
    if len(after) == 4:
        projection, second, hidden, output = after
        scales = (None, None)
    elif len(after) == 6:
        projection, first_scale, second, hidden, output, second_scale = after
        scales = (first_scale, second_scale)
    else:
        return
    linear = [*qkv, projection, hidden, output]
    if not all(isinstance(layer, nn.Linear) and layer in copy.layers for layer in linear):
        return
    width = (qkv[0].in_features,)
    if not all(is_layer_norm(one) and one.normalized_shape == width for one in (norm, second)):
        return
    if sum(layer.out_features for layer in qkv) != 3 * projection.in_features:
        return
    if not all(scale is None or _shapes(scale) == [width] for scale in scales):
        return
    for ordered in permutations(qkv):  # a model may compute its keys first
        yield Block(
            module, (norm, second), ordered, projection, (hidden, output), scales, attention
        )


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in module.parameters()]


def _added(block: Block, x: Tensor) -> Tensor:
    """Compute what a block adds to its input, by the formula."""
    normed = block.norms[0](x)
    qkv = torch.cat([layer(normed) for layer in block.qkv], -1)
    heads = qkv.view(*x.shape[:2], 3, block.attention.heads, -1)
    q, k, v = heads.permute(2, 0, 3, 1, 4)
    mixed = scaled_dot_product_attention(q, k, v, scale=block.attention.scale)
    one, two = (1.0 if gamma is None else gamma for gamma in block.gammas)
    added: Tensor = block.projection(mixed.transpose(1, 2).flatten(2)) * one
    first, second = block.mlp
    hidden: Tensor = second(first(block.norms[1](x + added))) * two
    return added + hidden


class _Trace(ForwardCalls):
    """Records what runs inside each module: modules with weights, and attention.

    Args:
        model: whose modules are traced.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.inside: dict[nn.Module, list[Any]] = {}
        self.calls: Counter[nn.Module] = Counter()
        self.seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._ran: list[Any] = []
        self._began: list[int] = []

    def begins(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._began.append(len(self._ran))

    def ends(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        began = self._began.pop()
        self.calls[module] += 1
        if next(module.children(), None) is None:
            if next(module.parameters(), None) is not None:
                self._ran.append(module)
        elif takes_tokens_only(args, kwargs) and getattr(output, "shape", None) == args[0].shape:
            self.inside[module] = self._ran[began:]
            self.seen[module] = args[0], output

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is scaled_dot_product_attention and args and args[0].dim() == 4:
            query, scale = args[0], kwargs.get("scale")
            if scale is None or scale > 0:  # what `ops.attention` accepts
                self._ran.append(Attention(query.shape[1], checked_scale(scale, query.shape[-1])))
        return func(*args, **kwargs)


def takes_tokens_only(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call has one argument, a tensor (N, T, D): no mask, no option."""
    others = (*args[1:], *kwargs.values())
    return (
        bool(args)
        and isinstance(args[0], Tensor)
        and args[0].dim() == 3
        and not any(other is not None and other is not False for other in others)
    )
