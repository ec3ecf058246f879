"""CUDA graphs: on a GPU, all forwards over a batch are launched at once.

K forwards of a network are thousands of launches, which for small batches take longer than the
kernels. A graph is captured once and replayed for every batch of the same shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from lc_engine.backbone import tuning
from lc_engine.ops import contract

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any, TypeGuard

    from torch import Tensor

    from lc_engine.data.fields import Inputs


class CapturedGraph(NamedTuple):
    """A graph, its input and output, and what else must keep its address."""

    replay: Callable[[], None]
    inputs: Tensor
    output: Tensor
    kept: object = None


class Graphs:
    """Runs a function of a batch, on a GPU through a CUDA graph of it.

    The first batch of a shape runs eagerly, which also compiles kernels and lets libraries choose
    theirs; the second is captured. What cannot be captured (a forward that waits for the device)
    runs eagerly, with one warning.

    Args:
        name: of the model, for that warning.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: set[Hashable] = set()
        self._captured: dict[Hashable, CapturedGraph] = {}
        self._refused = False

    def run(self, kind: Hashable, inputs: Inputs, compute: Callable[[Any], Tensor]) -> Tensor:
        """Return compute(inputs).

        Args:
            kind: equal for functions that compute the same.
            inputs: (N, …); those with names run eagerly, as their lengths differ by batch.
            compute: a function of tensors on one device that depends on nothing that changes.
        """
        if not _on_gpu(inputs) or self._refused:
            return compute(inputs)
        key = (kind, inputs.shape, inputs.dtype)
        if key not in self._captured:
            if key not in self._seen or len(self._captured) == tuning.CUDA_GRAPHS:
                self._seen.add(key)
                return compute(inputs)
            try:
                self._captured[key] = _capture(compute, inputs)
            except RuntimeError as error:
                self._refused = True
                contract.warn_once(
                    f"lc_engine: {self._name} cannot be captured as a CUDA graph "
                    f"({str(error).splitlines()[0]}), so its forwards are launched one by one."
                )
                return compute(inputs)
        graph = self._captured[key]
        graph.inputs.copy_(inputs)
        graph.replay()
        return graph.output.clone()


def _on_gpu(inputs: Inputs) -> TypeGuard[Tensor]:
    return isinstance(inputs, torch.Tensor) and inputs.is_cuda


def _capture(compute: Callable[[Tensor], Tensor], inputs: Tensor) -> CapturedGraph:
    from lc_engine.kernels.apply_thresholds import tables_kept

    held = inputs.clone()
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on to read data into pinned memory.
    with tables_kept() as tables, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = compute(held)
    return CapturedGraph(graph.replay, held, output, tables)
