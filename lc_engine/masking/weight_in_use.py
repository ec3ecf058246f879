"""Whether a layer multiplies by the weight that it holds, or by one that its forward computes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable

_PRODUCTS: Final = frozenset(
    {
        *("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "einsum"),
        *(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)),
    }
)
# ‖u − c w‖ / ‖u‖ below which u is w times a number: a rounding to bfloat16 is 0.002.
_ROUNDING: Final = 5e-3


def computes_weight(layer: nn.Module) -> bool:
    """Return whether a layer of its own class multiplies by another weight than it holds.

    A copy of the layer runs once on ones, and its products are watched. The weight, a view of it or
    a multiple of it is the one that it holds. A forward that needs more than one input, or has no
    product of that size, is not judged.

    Args:
        layer: a subclass of `nn.Linear` or of a convolution; its weight has values.
    """
    if not _has_own_forward(layer):
        return False
    weight = layer._parameters["weight"]
    if weight is None or not weight.numel():
        return False
    try:
        twin = copy.deepcopy(layer).eval()
        seen = _Products(weight.numel())
        with torch.no_grad(), seen:
            twin(_ones(layer, weight))
    except Exception:  # a forward of someone else raises anything at all
        return False
    own = twin._parameters["weight"]
    assert own is not None
    return bool(seen.used) and not any(_is_multiple(used, own.detach()) for used in seen.used)


class _Products(TorchFunctionMode):
    """Keep the operands of products that have as many elements as a weight."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel = numel
        self.used: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in _PRODUCTS:
            operands = tree_leaves((args, kwargs))
            self.used += [t for t in operands if isinstance(t, Tensor) and t.numel() == self.numel]
        return func(*args, **(kwargs or {}))


def _has_own_forward(layer: nn.Module) -> bool:
    forwards = [getattr(type(layer), name, None) for name in ("forward", "_conv_forward")]
    return any(f is not None and not f.__module__.startswith("torch.nn.") for f in forwards)


def _ones(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return an input (2, in) of a linear layer, or one as large as the kernel of a convolution."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        extent = [d * (k - 1) + 1 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        return weight.new_ones(1, layer.in_channels, *extent)
    return weight.new_ones(2, weight.shape[1])


def _is_multiple(used: Tensor, weight: Tensor) -> bool:
    if used.data_ptr() == weight.data_ptr():
        return True
    u, w = used.detach().double(), weight.double()
    orders = [other for other in (w, w.T) if other.shape == u.shape] if w.dim() == 2 else [w]
    if not orders or orders[0].shape != u.shape:
        u, orders = u.reshape(-1).sort().values, [w.reshape(-1).sort().values]
    square = (w * w).sum()
    if not square.isfinite() or square == 0:  # nothing tells
        return True
    return any(
        bool((u - (u * other).sum() / square * other).norm() <= _ROUNDING * u.norm())
        for other in orders
    )
