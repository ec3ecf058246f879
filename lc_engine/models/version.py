"""Which version of a model something was computed from."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from torch import Tensor

from lc_engine._util.digests import tensors_digest

if TYPE_CHECKING:
    from torch import nn


class ModelVersion:
    """The modules, tensors and weights that a model consists of when this is created.

    Args:
        model: any module.
        buffers: whether writes to buffers count; not for a model whose own forwards write them.

    Attributes:
        digest: of its state.
    """

    def __init__(self, model: nn.Module, *, buffers: bool = True) -> None:
        self._model = model
        self._buffers = buffers
        # Held, such that no later object has the identity of one that is gone.
        self._parts, self._marks = _parts(model, buffers)
        self.digest = model_digest(model)

    def stale(self) -> bool:
        """Return whether a module or tensor was replaced, or a tensor written to, since.

        A write through `.data` leaves no trace here: see `differs`.
        """
        return _parts(self._model, self._buffers)[1] != self._marks

    def differs(self) -> bool:
        """Return whether the model is another one by its digest, however it was changed."""
        return model_digest(self._model) != self.digest


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
