"""Run what comes before the first masked weight once for all sub-models of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from lc_engine.backbone.model_copy import ModelCopy


def apply(copy: ModelCopy) -> bool:
    """Attach `copy.prefix` to the largest modules without a masked weight.

    All sub-models see the same input, so a module that runs before the first masked one has the
    same output at every capacity. Which modules these are shows as they run.

    Returns:
        Whether there are modules without a masked weight.
    """
    masked = {id(module) for module in copy.masked}
    for module in copy.masked:
        module.register_forward_pre_hook(copy.prefix.close)
    free = _largest_without(copy.model, masked)
    for module in free:
        copy.prefix.attach(module)
    return bool(free)


def _largest_without(module: nn.Module, masked: set[int]) -> list[nn.Module]:
    """Return the largest modules inside a module that hold no masked one."""
    found: list[nn.Module] = []
    for child in module.children():
        if masked.isdisjoint(id(part) for part in child.modules()):
            found.append(child)
        elif id(child) not in masked:
            found += _largest_without(child, masked)
    return found
