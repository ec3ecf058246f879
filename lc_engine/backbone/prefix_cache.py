"""Outputs of modules that run before the first masked one: computed once, replayed K − 1 times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from torch import nn


class PrefixCache:
    """Records the outputs of modules in a forward, and replays them in the next.

    Outputs are kept by batch (`begin`) and dropped at `forget`. From the first masked module of a
    forward on (`close`), nothing is recorded or replayed.

    Attributes:
        bytes_held: memory of the recorded outputs.
    """

    def __init__(self) -> None:
        self._outputs: dict[int, list[tuple[nn.Module, Any]]] = {}
        self._replay: list[tuple[nn.Module, Any]] = []
        self._record: list[tuple[nn.Module, Any]] | None = None
        self.bytes_held = 0

    def attach(self, module: nn.Module) -> None:
        """Replace a module's forward by one that records and replays, for good."""
        forward = module.forward

        def call(*args: Any, **kwargs: Any) -> Any:
            # Copied on the way in and out: the model may write to what a module returned.
            if self._replay:
                owner, value = self._replay.pop()
                if owner is module:
                    return _copy(value)
                self.close()  # another order than before: nothing that follows is known
            value = forward(*args, **kwargs)
            if self._record is not None:
                kept = _copy(value)
                if kept is None:
                    self._record = None
                else:
                    self._record.append((module, kept))
                    self.bytes_held += sum(part.nbytes for part in _tensors(kept))
            return value

        module.forward = call

    def begin(self, batch: int) -> None:
        """Begin a forward over the batch of this index, whose inputs are the same each time."""
        seen = batch in self._outputs
        kept = self._outputs.setdefault(batch, [])
        self._replay, self._record = (list(reversed(kept)), None) if seen else ([], kept)

    def close(self, *_: Any) -> None:
        """End the prefix of this forward: a forward pre-hook of masked modules."""
        self._replay, self._record = [], None

    def forget(self) -> None:
        """Drop all outputs: other inputs follow."""
        self._outputs.clear()
        self._replay, self._record, self.bytes_held = [], None, 0


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _copy(value: Any) -> Any:
    """Copy a tensor or a tuple of tensors; return None for anything else."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple) and all(isinstance(part, Tensor) for part in value):
        return tuple(part.clone() for part in value)
    return None
