"""What a custom op does without values, under torch.compile or on `meta`: the shapes of results."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Arguments that lie on the host or beside the others.
_ON_HOST = ("thresholds", "path_weights")


def register_shapes(name: str, shapes: Callable[..., Any]) -> None:
    """Register what `lc_engine::name` returns in a trace.

    Args:
        name: of the operator, which is registered already.
        shapes: takes those of the operator's arguments that it needs, by their names, and returns
            empty tensors of the results' shapes and dtypes.
    """
    schema = getattr(torch.ops.lc_engine, name).default._schema
    order = [argument.name for argument in schema.arguments]
    needed = [(one, order.index(one)) for one in inspect.signature(shapes).parameters]

    def fake(*arguments: Any) -> Any:
        _check_meta(order, arguments)
        return shapes(**{one: arguments[at] for one, at in needed})

    torch.library.register_fake(f"lc_engine::{name}", fake)


def _check_meta(names: Sequence[str], arguments: Sequence[Any]) -> None:
    """Check that no argument is alone on `meta`: one is enough for torch to compute shapes only.

    The empty results would lie beside the other arguments, and look like values.

    Raises:
        ValueError: naming the argument.
    """
    tensors = list(_tensors(names, arguments))
    on_meta = [name for name, tensor in tensors if tensor.is_meta]
    beside = [
        tensor.device
        for name, tensor in tensors
        if not tensor.is_meta and name.partition("[")[0] not in _ON_HOST
    ]
    if on_meta and beside:
        raise ValueError(f"{on_meta[0]} is on meta, but must be on {beside[0]}")


def _tensors(names: Sequence[str], arguments: Sequence[Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in zip(names, arguments, strict=False):
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, (list, tuple)):
            yield from _tensors([f"{name}[{i}]" for i in range(len(value))], value)
