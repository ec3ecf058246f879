"""Forwards of a copy through torch.compile, compiled once for all sub-models.

The weights are inputs of what is compiled, so that other values in them compile nothing anew, and
batches are padded to one number of rows. `Graphs` captures the compiled forwards as it does others.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from lc_engine.backbone import tuning
from lc_engine.models.pooling import first_tensor
from lc_engine.ops import contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.data.fields import Inputs
    from lc_engine.models.classifier import Tap

BACKEND: Final[Any] = "inductor"
# Of the largest output, how far a compiled forward in bfloat16 may be from the eager one. Where the
# classifier is not what a model ends with, they have nothing in common.
_TOLERANCE: Final = 0.05


def pays(device: torch.device, rows: int, points: int) -> bool:
    """Return whether a job is long enough to compile for.

    By its size alone: scores must not depend on a timing of the moment.

    Args:
        device: of the model; on a CPU layers have kernels of their own.
        rows: of the whole data set.
        points: K.
    """
    return device.type == "cuda" and rows * points >= tuning.COMPILED_FORWARDS


class CompiledForwards:
    """The features and logits of a copy, compiled when they are first run.

    What cannot be compiled runs eagerly, with one warning that names the model.

    Args:
        tap: the copy; its weights are written in place afterwards.
        name: of the model.
    """

    def __init__(self, tap: Tap, name: str) -> None:
        self._tap, self._name = tap, name
        self._rows = 0
        self._compiled: dict[str, Callable[[Inputs], Tensor]] = {}

    def padded(self, inputs: Tensor) -> Tensor:
        """Return inputs with at least as many rows as any before: the first one, repeated."""
        self._rows = max(self._rows, len(inputs))
        missing = self._rows - len(inputs)
        if not missing or not len(inputs):
            return inputs
        return torch.cat([inputs, inputs[:1].expand(missing, *inputs.shape[1:])])

    def of(self, eager: Callable[[Inputs], Tensor]) -> Callable[[Inputs], Tensor]:
        """Return what runs in place of `Tap.features` or `Tap.logits`; other forwards as they are.

        Args:
            eager: the method.
        """
        kind = eager.__name__
        if kind not in ("features", "logits"):
            return eager
        if kind not in self._compiled:
            self._compiled[kind] = self._first(kind, eager)
        return self._compiled[kind]

    def _first(self, kind: str, eager: Callable[[Inputs], Tensor]) -> Callable[[Inputs], Tensor]:
        """Return a forward that compiles, and compares what it returns, at its first call."""

        def first(inputs: Inputs) -> Tensor:
            expected = eager(inputs)
            try:
                forward = self._compile(kind)
                found = forward(inputs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # the compiler runs the model's code, in its own way
                self._refuse(kind, eager, f"{type(error).__name__}: {error}")
                return expected
            if not _is_near(found, expected):
                self._refuse(kind, eager, "it does not end with its classifier")
                return expected
            self._compiled[kind] = forward
            return expected

        return first

    def _refuse(self, kind: str, eager: Callable[[Inputs], Tensor], reason: str) -> None:
        self._compiled[kind] = eager
        # The first line of the compiler's says where it failed, the second what.
        shown = " ".join(reason.split("\n")[:2])
        contract.warn_once(
            f"lc_engine: {self._name} is not compiled ({shown:.200}), so its forwards run layer by "
            "layer."
        )

    def _compile(self, kind: str) -> Callable[[Inputs], Tensor]:
        tap = self._tap
        tensors = {id(one): one for one in [*tap.model.parameters(), *tap.model.buffers()]}
        with torch.inference_mode(False):
            twin = copy.deepcopy(tap.model, tensors)  # of the modules alone
        what = "model's output"
        if kind == "features" and tap.name is not None:
            # The hook by which `Tap` reads the classifier's input would be compiled anew each time.
            twin.set_submodule(tap.name, nn.Identity())
            what = f'input of "{tap.name}"'
        run: Callable[[Tensor], Any] = torch.compile(twin, backend=BACKEND, dynamic=False)

        def forward(inputs: Inputs) -> Tensor:
            assert isinstance(inputs, Tensor)
            # A copy: a forward may write to what it is given.
            return tap.pool(first_tensor(run(inputs.clone())), len(inputs), what)

        return forward


def _is_near(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    one, other = (part.float().nan_to_num() for part in (found, expected))
    return bool((one - other).abs().max() <= _TOLERANCE * other.abs().max() + 1e-30)
