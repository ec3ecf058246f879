"""Which module is the only consumer of another module's output, seen in one forward."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lc_engine.models.classifier import call

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from lc_engine.backbone.model_copy import ModelCopy
    from lc_engine.data.fields import Inputs

Named = tuple[str, Any]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def sole_consumers(model: nn.Module, example: Inputs) -> list[tuple[Named, Named]]:
    """Return the modules whose output has one consumer, each with that consumer.

    Modules without children, and batch norms, are watched. Those that return their input, such as
    `nn.Identity`, are looked through, and a tensor that was written to in between is another one.
    What happens to a tensor outside modules is not seen.

    Args:
        model: in evaluation mode.
        example: (N, …) inputs, a few rows.

    Returns:
        Pairs of (name, module): producer and consumer, each of which ran once.
    """
    producers: dict[tuple[int, int], Named] = {}
    consumers: dict[tuple[int, int], list[Named]] = {}
    calls: Counter[nn.Module] = Counter()
    consumed: dict[nn.Module, list[tuple[int, int]]] = {}
    alive: list[Tensor] = []  # so that no two tensors have one id

    def watch(name: str, module: nn.Module) -> list[RemovableHandle]:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            alive.extend(tensors)
            consumed[module] = [_version(value) for value in tensors]

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls[module] += 1
            if isinstance(output, Tensor):
                if _version(output) in consumed[module]:
                    return
                alive.append(output)
                producers[_version(output)] = (name, module)
            for version in consumed[module]:
                consumers.setdefault(version, []).append((name, module))

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]

    handles = [
        handle
        for name, module in model.named_modules()
        if isinstance(module, NORMS) or not any(module.children())
        for handle in watch(name, module)
    ]
    try:
        # Tensors of inference mode have no version.
        with torch.inference_mode(False), torch.no_grad():
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (producer, consumers[version][0])
        for version, producer in producers.items()
        if len(consumers.get(version, [])) == 1
        and calls[producer[1]] == calls[consumers[version][0][1]] == 1
    ]


def fusable_pairs(copy: ModelCopy) -> list[tuple[Named, Named]]:
    """Return the pairs of `sole_consumers` between which nobody else looks.

    Left out are those whose tensor enters or leaves the classifier or a module with hooks.
    """
    observed = [name for name, module in copy.model.named_modules() if hooked(module)]
    if copy.classifier is not None:
        observed.append(copy.classifier)
    return [
        (producer, consumer)
        for producer, consumer in sole_consumers(copy.model, copy.example)
        if not any(_observes(name, producer[0], consumer[0]) for name in observed)
    ]


def hooked(module: nn.Module) -> bool:
    """Return whether hooks see the inputs or outputs of a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _version(tensor: Tensor) -> tuple[int, int]:
    """Return a key of a tensor's content: another one once it was written to."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


def _observes(module: str, producer: str, consumer: str) -> bool:
    """Return whether the tensor between two modules enters or leaves a module."""
    inside = [not module or f"{name}.".startswith(f"{module}.") for name in (producer, consumer)]
    return inside[0] != inside[1] or module in (producer, consumer)
