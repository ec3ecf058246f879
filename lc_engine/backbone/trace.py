"""Watching a model's forward: which module alone takes what another gives, and what is called."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.hooks import RemovableHandle

Named = tuple[str, Any]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Relative to the largest number in the output; changes that only round differently stay below 1e-5.
_TOLERANCE = 1e-3


def sole_takers(model: nn.Module, example: Tensor) -> list[tuple[Named, Named]]:
    """Find the modules whose output goes into one other module only, seen in one forward.

    Watched are modules without children, and norms. Those that give back what they got, such as
    `nn.Identity`, are looked through, and a tensor that was written to in between is another one.
    What is done with a tensor outside of modules is not seen.

    Args:
        model: in evaluation mode.
        example: (N, …) inputs, a few rows.

    Returns:
        Pairs of (name, module): who gives, and who takes; each of them ran once.
    """
    giver: dict[tuple[int, int], Named] = {}
    takers: dict[tuple[int, int], list[Named]] = {}
    calls: Counter[nn.Module] = Counter()
    taken: dict[nn.Module, list[tuple[int, int]]] = {}
    alive: list[Tensor] = []  # so that no two tensors have one id

    def watch(name: str, module: nn.Module) -> list[RemovableHandle]:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            alive.extend(tensors)
            taken[module] = [_content(value) for value in tensors]

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls[module] += 1
            if isinstance(output, Tensor):
                if _content(output) in taken[module]:
                    return
                alive.append(output)
                giver[_content(output)] = (name, module)
            for content in taken[module]:
                takers.setdefault(content, []).append((name, module))

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
        # Tensors of inference mode do not tell whether they were written to.
        with torch.inference_mode(False), torch.no_grad():
            model(example.clone())
    finally:
        for handle in handles:
            handle.remove()
    return [
        (one, takers[content][0])
        for content, one in giver.items()
        if len(takers.get(content, [])) == 1 and calls[one[1]] == calls[takers[content][0][1]] == 1
    ]


def _content(tensor: Tensor) -> tuple[int, int]:
    """Tell a tensor from others, and from itself once it was written to."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


class Calls(TorchFunctionMode):
    """Runs every function of torch's that is called while it is entered: `call` may be another."""

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function."""
        return func(*args, **kwargs)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.call(func, args, kwargs or {})


class ForwardCalls(Calls):
    """Is told of a model's modules too, as their forwards begin and end.

    Args:
        model: whose modules are meant.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model

    def begins(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Be told that a forward begins."""

    def ends(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """Be told that it ends: what it got and gave."""

    def __enter__(self) -> Self:
        self._handles = [
            handle
            for module in self._model.modules()
            for handle in (
                module.register_forward_pre_hook(self.begins),
                module.register_forward_hook(self.ends, with_kwargs=True),
            )
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()


def class_name(module: nn.Module) -> str:
    """Name a module's class with where it comes from, for classes that are not torch's."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def hooked(module: nn.Module) -> bool:
    """Tell whether something looks at what goes into a module or comes out of it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def tensors_of(output: Any) -> list[Tensor]:
    """List the tensors that a model gave."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if hasattr(output, "values") else output
    return [part for part in values if isinstance(part, Tensor)]


def alike(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Tell whether tensors are the same up to rounding."""
    return len(found) == len(expected) and all(
        a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * (b.abs().max() + 1e-30))
        for a, b in zip(found, expected, strict=True)
    )
