"""Which version of a model something was computed from."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lc_engine._util.digests import tensors_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

# Attributes of a module that are compared otherwise, or that evaluation mode sets.
_OTHERWISE = frozenset({"training", "_parameters", "_buffers", "_modules"})
_VALUES = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))


class ModelVersion:
    """The modules, tensors and weights that a model consists of when this is created.

    Args:
        model: any module.
        buffers: whether writes to buffers and other attributes count; not for a model that runs
            itself, whose own forwards write them.

    Attributes:
        digest: of its state.
    """

    def __init__(self, model: nn.Module, *, buffers: bool = True) -> None:
        self._model = model
        self._buffers = buffers
        # Held, such that no later object has the identity of one that is gone.
        self._parts, self._marks = _parts(model, buffers)
        self.digest = model_digest(model)
        self._settings = _settings(model) if buffers else []

    def stale(self) -> bool:
        """Return whether a module or tensor was replaced, or a tensor written to, since.

        A write through `.data` or to an attribute that is no tensor leaves no trace here: see
        `differs`.
        """
        return _parts(self._model, self._buffers)[1] != self._marks

    def differs(self) -> bool:
        """Return whether the model is another one by its digest or by what else it computes with.

        That is hooks, classes, functions, numbers such as a stride, and tensors outside the state.
        """
        if model_digest(self._model) != self.digest:
            return True
        # Compared by identity where an object is no value: those of then are held by the list.
        return self._buffers and _settings(self._model) != self._settings


def model_digest(model: nn.Module) -> str:
    """Return the digest of a model's state, extra state that is no tensor left out."""
    state = model.state_dict().items()
    return tensors_digest((name, value) for name, value in state if isinstance(value, Tensor))


def _parts(model: nn.Module, buffers: bool) -> tuple[list[object], list[tuple[str | int, ...]]]:
    """Return the submodules and tensors of a model, and what changes with each."""
    parts: list[object] = []
    marks: list[tuple[str | int, ...]] = []
    for module in model.modules():
        for name, child in module._modules.items():
            parts.append(child)
            marks.append((name, id(child)))
        for name, tensor in chain(module._parameters.items(), module._buffers.items()):
            parts.append(tensor)
            if tensor is None or (not buffers and name in module._buffers):
                marks.append((name, id(tensor)))
            else:
                version = 0 if tensor.is_inference() else tensor._version
                marks.append((name, id(tensor), tensor.data_ptr(), version))
    return parts, marks


def _settings(model: nn.Module) -> list[tuple[str, Any]]:
    """Return what a model computes with besides its state, by name."""
    found: list[tuple[str, Any]] = []
    for name, module in model.named_modules():
        found.append((name, type(module)))
        for key in sorted(module._non_persistent_buffers_set):
            found += _leaves(f"{name}.{key}", module._buffers.get(key))
        for key, value in vars(module).items():
            if key not in _OTHERWISE:
                found += _leaves(f"{name}.{key}", value)
    return found


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values of an attribute: of a tensor its digest, of other objects a handle."""
    if isinstance(value, Tensor):
        yield name, tensors_digest([(name, value)])
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield name, (value.dtype.str, value.shape, value.tobytes())
    elif isinstance(value, dict):
        yield name, len(value)
        for key, one in value.items():
            yield from _leaves(f"{name}[{key!r}]", one)
    elif isinstance(value, list | tuple):
        yield name, len(value)
        for index, one in enumerate(value):
            yield from _leaves(f"{name}[{index}]", one)
    elif isinstance(value, _VALUES):
        yield name, repr(value)
    elif isinstance(value, set | frozenset):
        yield name, sorted(map(repr, value))
    else:
        yield name, _Handle(value)


class _Handle:
    """An object, equal to itself only."""

    def __init__(self, held: object) -> None:
        self._held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Handle) and other._held is self._held

    __hash__ = None  # type: ignore[assignment]
