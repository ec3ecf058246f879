"""The sub-models of a model, in a copy optimized by passes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lc_engine.backbone import tuning
from lc_engine.backbone.compiled import CompiledForwards
from lc_engine.backbone.cuda_graphs import Graphs
from lc_engine.backbone.dropout import InjectedDropout
from lc_engine.backbone.dtypes import unquantized_dtype
from lc_engine.backbone.masked_weights import WHOLE, MaskedWeights
from lc_engine.backbone.model_copy import ModelCopy, copied
from lc_engine.backbone.passes import COMPILED, PASSES
from lc_engine.backbone.recognize import has_kernel
from lc_engine.backbone.split_batch import split_inputs
from lc_engine.data.fields import collated
from lc_engine.masking.maskable import matrix_at
from lc_engine.models.state import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    from lc_engine.backbone.interface import RowLoss
    from lc_engine.backbone.split_batch import Part
    from lc_engine.data.fields import Inputs
    from lc_engine.masking import Masking, Masks


class OptimizedCopy:
    """The sub-models of a model, in a copy of it optimized by `PASSES`.

    Args:
        model: any module; it is read, never written.
        weights: its masked parameters by name, as `Masking.find` returns them.
        masks: of the K sub-models.
        masking: how they are compared.
        classifier: name of the classifier module, None if the model's output are the features.
        dtype: of weights and activations; torch.int8 multiplies linear layers, and convolutions
            without groups, in int8, and computes all else in `unquantized_dtype`.
        example: (N, …) inputs, on the model's device.
        compiles: whether forwards run through torch.compile; not with dropout, whose rate is no
            weight.

    Attributes:
        dtype: of the features.
        tap: the copy and its classifier.
        passes: names of the passes that changed the copy.

    Raises:
        ValueError: the model cannot be copied, or cannot take inputs of that shape.
    """

    widths: tuple[int, ...] = ()

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        masks: Masks,
        masking: Masking,
        classifier: str | None,
        dtype: torch.dtype,
        example: Inputs,
        compiles: bool = False,
    ) -> None:
        int8, dropout = dtype == torch.int8, masking.kind == "dropout"
        compiles = compiles and not (int8 or dropout)
        self.dtype = dtype = unquantized_dtype() if int8 else dtype
        twin = copied(model)
        masked = _owners(twin, weights)
        own = next(iter(weights.values())).dtype
        copy = ModelCopy(
            twin,
            _in_dtype(example[:2], own),
            masked,
            [module for module in masked if has_kernel(module, dtype) and not compiles],
            classifier,
            dtype,
            int8=int8,
            dropout=dropout,
        )
        names = COMPILED if compiles else PASSES
        self.passes = tuple(name for name in names if PASSES[name](copy))
        self.tap = copy.tap
        self._compiled: CompiledForwards | None = None
        if compiles:
            copy.attention = nullcontext
            self._compiled = CompiledForwards(copy.tap, type(model).__name__)
        self._attention, self._kernels, self._prefix = copy.attention, copy.kernels, copy.prefix
        self._weights = MaskedWeights(weights, masks, twin, copy.factors)
        self._dropout = InjectedDropout(masked, masking.seed) if dropout else None
        self._rates = masks.thresholds[:, 0].tolist()
        self._first_equal = masks.first_equal
        self._images = _images_at_once(copy)
        self._parts_at_once = 1
        self._state = ModelState(twin)
        self._written: int | None = None
        self._graphs = Graphs(type(model).__name__)

    def features(self, inputs: Inputs, points: Sequence[int]) -> Tensor:
        """Return the inputs of the classifiers of sub-models.

        Args:
            inputs: (N, …) on the model's device.
            points: P indices of sub-models.

        Returns:
            (P, N, D) in the dtype of the copy.
        """
        return self._run(inputs, points, self.tap.features)

    def logits(self, inputs: Inputs, points: Sequence[int]) -> Tensor:
        """Return the outputs of the classifiers of sub-models, (P, N, C)."""
        return self._run(inputs, points, self.tap.logits)

    def features_and_logits(self, inputs: Inputs, point: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (N, D) and outputs (N, C) of the classifier of one sub-model."""
        both = self._run(inputs, [point], self.tap.features_and_logits)[0]
        classes = self.tap.linear.out_features
        return both[:, :-classes], both[:, -classes:]

    def losses(
        self, inputs: Inputs, targets: Sequence[Any], points: Sequence[int], loss: RowLoss
    ) -> Tensor:
        """Return the losses (P, N) of sub-models; see `Views.losses`."""

        def forward(part: Part) -> Tensor:
            own = collated([targets[row] for row in part.rows.tolist()], inputs.device)
            return loss(self.tap.run(part.inputs), own, len(part.inputs))

        firsts = [self._first_of(k) for k in points]
        run = sorted(set(firsts))
        found = self._run_each(inputs, run, forward)
        return found[[run.index(first) for first in firsts]]

    def whole(self, inputs: Inputs) -> Tensor:
        """Return the features (N, D) of the model with all its weights."""
        return self._run(inputs, [WHOLE], self.tap.features)[0]

    def _first_of(self, k: int) -> int:
        """Return the first point that is the same network."""
        return k if k == WHOLE else self._first_equal[k]

    def _run(
        self, inputs: Inputs, points: Sequence[int], forward: Callable[[Inputs], Tensor]
    ) -> Tensor:
        if inputs.is_cuda:
            self._written = None  # a graph writes every sub-model itself
        # Sub-models that are one network run once.
        firsts = [self._first_of(k) for k in points]
        run = sorted(set(firsts))
        kind = (forward.__name__, tuple(run))
        rows, compiled = len(inputs), self._compiled
        if compiled is not None and isinstance(inputs, Tensor):
            inputs = compiled.padded(inputs)

        def run_part(part: Part) -> Tensor:
            if compiled is None or not isinstance(part.inputs, Tensor):
                return forward(part.inputs)
            return compiled.of(forward)(part.inputs)

        found = self._graphs.run(kind, inputs, lambda held: self._run_each(held, run, run_part))
        found = found[:, :rows]
        return found if run == firsts else found[[run.index(first) for first in firsts]]

    def _run_each(
        self, inputs: Inputs, points: Sequence[int], forward: Callable[[Part], Tensor]
    ) -> Tensor:
        """Run sub-models over inputs, one after the other: (P, N, …)."""
        parts = split_inputs(inputs, self.dtype, self._images)
        order = None
        if not isinstance(inputs, Tensor):
            order = torch.cat([part.rows for part in parts]).argsort().to(inputs.device)
        chunks = []
        while parts:
            now, parts = parts[: self._parts_at_once], parts[self._parts_at_once :]
            rows = []
            try:
                for k in points:
                    self._write(k)
                    outputs = []
                    for i, part in enumerate(now):
                        self._prefix.begin(i)
                        with self._attention():
                            outputs.append(forward(part))
                    rows.append(torch.cat(outputs))
                held = self._prefix.bytes_held // len(now)
            finally:
                self._prefix.forget()
            self._parts_at_once = max(1, tuning.PREFIX_BYTES // held) if held else 1 << 30
            chunks.append(torch.stack(rows))
        found = torch.cat(chunks, dim=1)
        return found if order is None else found[:, order]

    def _write(self, k: int) -> None:
        """Make the copy sub-model k."""
        # A forward that writes to a buffer must not let one sub-model see the one before.
        self._state.put_back_buffers()
        if self._dropout is not None:
            self._dropout.rate = 0.0 if k == WHOLE else self._rates[k]
            k = WHOLE
        if k == self._written:
            return
        self._written = None
        self._kernels.clear()
        self._weights.write(k)
        self._written = k


def _in_dtype(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Return inputs whose floating-point tensors have a dtype."""
    if isinstance(inputs, Tensor) and not inputs.is_floating_point():
        return inputs
    return inputs.to(dtype)


def _owners(model: nn.Module, names: Collection[str]) -> list[nn.Module]:
    """Return the modules that hold parameters of these names, in the order of the modules."""
    # By address: experts are views of one parameter, the first of which begins where it does.
    wanted = {matrix_at(model, name).data_ptr() for name in names}
    return [
        module
        for module in model.modules()
        if any(weight.data_ptr() in wanted for weight in module.parameters(recurse=False))
    ]


def _images_at_once(copy: ModelCopy) -> int:
    """Return how many images of 224 × 224 pixels go through a copy together."""
    convolutions = sum(isinstance(module, nn.Conv2d) for module in copy.masked)
    if convolutions <= len(copy.masked) * tuning.CONVOLUTIONAL_SHARE:
        return tuning.IMAGES_OF_TOKENS_INT8 if copy.int8 else tuning.IMAGES_OF_TOKENS
    most, example = tuning.IMAGES_OF_CONVOLUTIONS, copy.example
    if isinstance(example, Tensor) and example.dim() == 4 and copy.map_numel:
        map_bytes = copy.map_numel * copy.dtype.itemsize / example[0, 0].numel() * 224 * 224
        most = min(most, int(tuning.MAP_BYTES / map_bytes))
    return max(1, most)
