"""The shared prefix: what a model computes before its first masked weight, computed once for all K.

All sub-models see the same input, so the modules that run before the first masked one give the
same at every capacity. Their outputs are kept during the first forward and handed back in the
others; which modules these are is seen as they run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class SharedPrefix:
    """Replaces the forward of a model's unmasked modules by one that remembers.

    Outputs are remembered by batch of inputs (`begin`) and forgotten at `forget`. Only modules
    that run before the first masked one are ever skipped.

    Args:
        model: in evaluation mode, and a copy: its modules are changed for good.
        masked: the modules whose weights differ between sub-models.

    Attributes:
        bytes_held: memory of the outputs that are remembered.
    """

    def __init__(self, model: nn.Module, masked: Collection[nn.Module]) -> None:
        self._outputs: dict[int, list[tuple[nn.Module, Any]]] = {}
        self._replay: list[tuple[nn.Module, Any]] = []
        self._record: list[tuple[nn.Module, Any]] | None = None
        self.bytes_held = 0
        for module in masked:
            module.register_forward_pre_hook(self._close)
        self._watch(model, {id(module) for module in masked})

    def _watch(self, module: nn.Module, masked: set[int]) -> None:
        """Watch the largest modules below this one that hold no masked weight."""
        for child in module.children():
            if masked.isdisjoint(id(part) for part in child.modules()):
                child.forward = self._remembering(child, child.forward)
            elif id(child) not in masked:
                self._watch(child, masked)

    def begin(self, batch: int) -> None:
        """Say that the next forward is over inputs of this number, the same each time."""
        seen = batch in self._outputs
        kept = self._outputs.setdefault(batch, [])
        self._replay, self._record = (list(reversed(kept)), None) if seen else ([], kept)

    def forget(self) -> None:
        """Drop all outputs: other inputs follow."""
        self._outputs.clear()
        self._replay, self._record, self.bytes_held = [], None, 0

    def _close(self, *_: Any) -> None:
        """Stop at a masked module: what comes after it differs between sub-models."""
        self._replay, self._record = [], None

    def _remembering(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            # Copies on the way in and out: the model may write into what a module gave it.
            if self._replay:
                owner, value = self._replay.pop()
                if owner is module:
                    return _copy(value)
                self._close()  # another order than before: nothing that follows is known
            value = forward(*args, **kwargs)
            if self._record is not None:
                kept = _copy(value)
                if kept is None:
                    self._record = None
                else:
                    self._record.append((module, kept))
                    self.bytes_held += sum(part.nbytes for part in _tensors(kept))
            return value

        return call


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _copy(value: Any) -> Any:
    """Copy a tensor or a tuple of tensors; None for anything else."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple) and all(isinstance(part, Tensor) for part in value):
        return tuple(part.clone() for part in value)
    return None
