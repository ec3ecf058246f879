"""What a forward calls, and whether two forwards return the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable

# Relative to the largest number in the output; changes that only round differently stay below 1e-5.
_TOLERANCE = 1e-3


class TorchCalls(TorchFunctionMode):
    """Runs every torch function that is called in its context through `call`."""

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


class ForwardCalls(TorchCalls):
    """Also runs callbacks before and after each module's forward.

    Args:
        model: whose modules are traced.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model

    def begins(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Called before a forward."""

    def ends(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """Called after a forward."""

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


def tensors_of(output: Any) -> list[Tensor]:
    """Return the tensors in a model's output."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if hasattr(output, "values") else output
    if not isinstance(values, Iterable) or isinstance(values, str):
        return []
    return [tensor for part in values for tensor in tensors_of(part)]


def alike(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Return whether tensors are the same up to rounding."""
    return len(found) == len(expected) and all(
        a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * (b.abs().max() + 1e-30))
        for a, b in zip(found, expected, strict=True)
    )
