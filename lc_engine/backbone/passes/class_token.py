"""First token: what a classifier sees of a transformer's last layers is all that is computed.

Classifiers of class tokens get one token of the last block. What its layers and its attention make
of the others is thrown away, which is a fifteenth of a forward of 12 blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lc_engine.backbone.trace import Calls, ForwardCalls, hooked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    Run = Callable[[], Tensor]


def first_token_layers(
    model: nn.Module, run: Run, modules: Collection[nn.Module]
) -> list[nn.Linear]:
    """Find the last linear layers of which only the first token's output is seen.

    From the last layer backwards, outputs of the other tokens are made NaN. As long as that leaves
    no trace in the features, no number of theirs got there.

    Args:
        model: in evaluation mode. One with hooks, which may look at any token, is left alone.
        run: gives its features (N, D) of a few rows.
        modules: of the model, to choose from.

    Returns:
        Linear layers over (N, tokens, D), the last one first; no layer of a model whose features
        see other tokens, or whose own features are not finite.
    """
    ran: list[nn.Linear] = []

    def note(layer: Any, _: object, output: Tensor) -> None:
        if output.dim() == 3 and output.shape[1] > 1:
            ran.append(layer)

    linear = [module for module in modules if isinstance(module, nn.Linear)]
    if not linear or any(hooked(module) for module in model.modules()):
        return []
    handles = [layer.register_forward_hook(note) for layer in linear]
    found: list[nn.Linear] = []
    with torch.no_grad():
        try:
            expected = run()
        finally:
            for handle in handles:
                handle.remove()
        handles = []
        try:
            for layer in reversed(ran):
                handles.append(layer.register_forward_hook(lambda *given: _spoilt(given[2])))
                if ran.count(layer) > 1 or not torch.equal(run(), expected):
                    break
                found.append(layer)
        finally:
            for handle in handles:
                handle.remove()
    return found


def first_token_attention(model: nn.Module, run: Run) -> list[nn.Module]:
    """Find the module that asks for the last attention, if only its first token's is seen.

    Args:
        model: as `first_token_layers` has it.
        run: the same.

    Returns:
        The innermost module whose forward calls `scaled_dot_product_attention` last, if it does so
        once; or nothing.
    """
    with torch.no_grad(), _Callers(model) as seen:
        expected = run()
    if not seen.callers or seen.callers.count(seen.callers[-1]) > 1:
        return []
    with torch.no_grad(), _Callers(model, spoils=len(seen.callers)):
        same = torch.equal(run(), expected)
    return seen.callers[-1:] if same else []


def run_on_first_token(layers: Iterable[nn.Module]) -> None:
    """Change layers to compute the first token's output, and to give zeros for the others."""
    for layer in layers:
        layer.forward = _on_first_token(layer.forward)


def attend_from_first_token(modules: Iterable[nn.Module]) -> None:
    """Do the same with the attention that modules ask for."""
    for module in modules:
        module.forward = _with_first_query(module.forward)


def _on_first_token(forward: Callable[..., Any]) -> Callable[..., Any]:
    def of_one(input: Tensor) -> Any:  # noqa: A002 - some models name it, as torch does
        if input.dim() != 3:
            return forward(input)
        first = forward(input[:, :1])
        every = first.new_zeros(len(input), input.shape[1], first.shape[2])
        every[:, :1] = first
        return every

    return of_one


def _with_first_query(forward: Callable[..., Any]) -> Callable[..., Any]:
    def attending(*args: Any, **kwargs: Any) -> Any:
        with _FirstQuery():
            return forward(*args, **kwargs)

    return attending


class _FirstQuery(Calls):
    """Gives what the first query attends to, and zeros for others, while it is entered."""

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # A mask has rows for all queries, and the first of causal ones would be another.
        plain = kwargs.get("attn_mask") is None and not kwargs.get("is_causal")
        if func is not scaled_dot_product_attention or len(args) != 3 or not plain:
            return func(*args, **kwargs)
        query, *others = args
        if query.dim() != 4:
            return func(*args, **kwargs)
        first = func(query[..., :1, :], *others, **kwargs)
        batch, heads, tokens = query.shape[:3]
        # As models want it next: the heads of a token side by side.
        every = first.new_zeros(batch, tokens, heads, first.shape[3]).transpose(1, 2)
        every[:, :, :1] = first
        return every


class _Callers(ForwardCalls):
    """Notes which module asks for attention, and may spoil what others than the first query get.

    Args:
        model: whose modules are meant.
        spoils: number of the call that is spoilt, counted from 1.
    """

    def __init__(self, model: nn.Module, spoils: int = 0) -> None:
        super().__init__(model)
        self.callers: list[nn.Module] = []
        self._spoils = spoils
        self._within: list[nn.Module] = []

    def begins(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._within.append(module)

    def ends(self, *_: object) -> None:
        self._within.pop()

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = func(*args, **kwargs)
        if func is scaled_dot_product_attention:
            self.callers.append(self._within[-1])
            if len(self.callers) == self._spoils:
                return _spoilt(found)
        return found


def _spoilt(tokens: Tensor) -> Tensor:
    """Copy (…, tokens, D) with NaN in all but the first of them."""
    spoilt = tokens.clone()
    spoilt[..., 1:, :] = torch.nan
    return spoilt
