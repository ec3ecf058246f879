"""What torch.compile needs of a custom op: the shapes of its results."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


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
        return shapes(**{one: arguments[at] for one, at in needed})

    torch.library.register_fake(f"lc_engine::{name}", fake)
