"""The working copy: a model made ready for K forwards over the same inputs.

Batch norms are folded into the convolutions, and activations fused into the layers before them;
pixels and weights lie as the machine likes them, numbers have the dtype asked for, what comes
before the first masked weight runs once, and what the classifier does not see of the last layers
not at all. The model that it was copied from is read, never written:
its weights are the pristine ones.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lc_engine import ops
from lc_engine.backbone.cuda_graphs import Graphs
from lc_engine.backbone.dropout import InjectedDropout
from lc_engine.backbone.dtypes import beside_int8
from lc_engine.backbone.passes.class_token import (
    attend_from_first_token,
    first_token_attention,
    first_token_layers,
    run_on_first_token,
)
from lc_engine.backbone.passes.cpu_attention import fast_attention
from lc_engine.backbone.passes.fast_layers import FastLayers, is_depthwise, taken
from lc_engine.backbone.passes.fold_batch_norm import fold_batch_norms
from lc_engine.backbone.passes.fuse_activations import fuse_activations, fuse_chains
from lc_engine.backbone.passes.max_pool import fasten, poolings
from lc_engine.backbone.passes.shared_prefix import SharedPrefix
from lc_engine.backbone.passes.transformer_blocks import find_blocks
from lc_engine.models.classifier import Tap
from lc_engine.models.state import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from lc_engine.masking import Masking

# Pictures of this many pixels at a time suit a CPU: 16 of 224 px. Of 4 to 48 that were tried, 12
# and 16 were fastest on EfficientNet-Lite0, 16 on ResNet-18.
_PIXELS = 16 * 224 * 224
# Tokens take less room than pixels: ViT-Tiny was a tenth faster with 32 pictures than with 8.
_PIXELS_OF_TOKENS = 32 * 224 * 224
# In 8 bits calls take a larger part, and what lies between two layers less room: with 128 pictures
# it was a twentieth faster than with 32.
_PIXELS_OF_TOKENS_IN_8_BITS = 128 * 224 * 224
# Outputs of the shared prefix that are held at a time.
_PREFIX_BYTES = 256 << 20
# Weights that are masked at a time before they take their place in another dtype or layout.
_STAGE_BYTES = 64 << 20
_WHOLE = -1


class WorkingCopy:
    """The sub-models of a model, in a copy of it.

    Args:
        model: any module; it is not changed.
        weights: its masked parameters by name, as `Masking.find` gives them.
        thresholds: (K, T) t_k of each.
        masking: how they are compared.
        classifier: name of the classifier module, None if the model's output are the features.
        dtype: of the copy's weights and of all that it computes; torch.int8 multiplies linear
            layers and convolutions without groups in 8 bits, and computes all else in
            `beside_int8`.
        example: (N, …) inputs, on the model's device.

    Raises:
        ValueError: the model cannot be copied, or cannot take inputs of that shape.
    """

    widths: tuple[int, ...] = ()

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        thresholds: Tensor,
        masking: Masking,
        classifier: str | None,
        dtype: torch.dtype,
        example: Tensor,
    ) -> None:
        int8 = dtype == torch.int8
        self.dtype = dtype = beside_int8() if int8 else dtype
        self._thresholds = thresholds
        self._pristine = [weight.detach().contiguous() for weight in weights.values()]
        self._saliency = masking.operator_saliency(weights)
        self._model = copied(model)
        unseen = ModelState(self._model)  # as it is before the forwards that show its parts
        self.tap = Tap(self._model, classifier)
        own = self._pristine[0].dtype
        few = example[:2].to(own) if example.is_floating_point() else example[:2]
        # A shape that does not fit is said here, in words.
        self._attention = fast_attention(lambda: self.tap.run(few), few.device)
        factors = fold_batch_norms(self._model, few) if own == torch.float32 else {}
        masked = _owners(self._model, [self._model.get_parameter(name) for name in weights])
        layers, pools = taken(masked, dtype), poolings(self._model)
        activations = fuse_activations(self._model, few, [*layers, *pools], classifier)
        fasten(pools, activations)
        chains, blocks = {}, []
        if int8 and masking.kind != "dropout":  # which drops what lies between two layers
            chains = fuse_chains(self._model, few, layers, activations, classifier)
            blocks = find_blocks(self._model, lambda: self.tap.features(few), layers)
        working = [module for module in masked if module not in chains.values()]
        alone = first_token_layers(self._model, lambda: self.tap.features(few), working)
        attends = alone and first_token_attention(self._model, lambda: self.tap.features(few))
        cut = {*alone, *attends}
        blocks = [block for block in blocks if cut.isdisjoint(block.module.modules())]
        self._factors = [factors.pop(name, None) for name in weights]
        with torch.no_grad():
            for name, factor in factors.items():  # of weights that no sub-model masks
                self._model.get_parameter(name).mul_(factor)
        unseen.put_back_buffers()
        cast(self._model, dtype, [module for module in layers if is_depthwise(module)])
        if example.dim() == 4:
            # Convolutions take pixels with their channels side by side twice as fast on a CPU.
            self._model.to(memory_format=torch.channels_last)
        self._live = [self._model.get_parameter(name) for name in weights]
        self._dropout = InjectedDropout(masked, masking.seed) if masking.kind == "dropout" else None
        self._layers = FastLayers(masked, activations, chains, blocks, int8=int8)
        run_on_first_token(alone)
        attend_from_first_token(attends)
        convolutions = sum(isinstance(module, nn.Conv2d) for module in masked)
        of_tokens = _PIXELS_OF_TOKENS_IN_8_BITS if int8 else _PIXELS_OF_TOKENS
        self._pixels = _PIXELS if convolutions > len(masked) / 4 else of_tokens
        self._prefix = SharedPrefix(self._model, masked)
        self._parts_at_once = 1
        self._state = ModelState(self._model)
        self._written: int | None = None
        self._graphs = Graphs(type(model).__name__)
        # One piece of memory for all groups, which a graph finds where it was.
        most = max(sum(_room(self._pristine[i]) for i in group) for group in self._groups())
        self._stage = self._pristine[0].new_empty(most, dtype=torch.uint8)

    def features(self, inputs: Tensor, points: Sequence[int]) -> Tensor:
        """Give what the classifiers of sub-models get.

        Args:
            inputs: (N, …) on the model's device.
            points: P numbers of sub-models.

        Returns:
            (P, N, D) in the dtype of the copy.
        """
        return self._each(inputs, points, self.tap.features)

    def logits(self, inputs: Tensor, points: Sequence[int]) -> Tensor:
        """Give what the classifiers of sub-models give, (P, N, C)."""
        return self._each(inputs, points, self.tap.logits)

    def whole(self, inputs: Tensor) -> Tensor:
        """Give the features (N, D) of the model with all its weights."""
        return self._each(inputs, [_WHOLE], self.tap.features)[0]

    def _each(
        self, inputs: Tensor, points: Sequence[int], run: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if inputs.is_cuda:
            self._written = None  # a graph writes every sub-model itself
        kind = (run.__name__, tuple(points))
        return self._graphs.run(kind, inputs, lambda held: self._in_turn(held, points, run))

    def _in_turn(
        self, inputs: Tensor, points: Sequence[int], run: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Run sub-models over inputs, one after the other: (P, N, …)."""
        parts = cache_sized(inputs, self.dtype, self._pixels)
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
                            outputs.append(run(part))
                    rows.append(torch.cat(outputs))
                held = self._prefix.bytes_held // len(now)
            finally:
                self._prefix.forget()
            self._parts_at_once = max(1, _PREFIX_BYTES // held) if held else 1 << 30
            chunks.append(torch.stack(rows))
        return torch.cat(chunks, dim=1)

    def _write(self, k: int) -> None:
        """Make the copy sub-model k."""
        # A forward that writes to a buffer must not let one sub-model see the one before.
        self._state.put_back_buffers()
        if self._dropout is not None:
            self._dropout.rate = 0.0 if k == _WHOLE else float(self._thresholds[k, 0])
            k = _WHOLE
        if k == self._written:
            return
        self._written = None
        self._layers.rewritten()
        thresholds = [-torch.inf] * len(self._live) if k == _WHOLE else self._thresholds[k].tolist()
        for group in self._groups():
            pristine = [self._pristine[i] for i in group]
            saliency = self._saliency
            staged = self._staged(pristine)
            ops.apply_thresholds(
                pristine,
                staged,
                [thresholds[i] for i in group],
                [saliency[i] for i in group] if isinstance(saliency, list) else saliency,
            )
            for i, weight in zip(group, staged, strict=True):
                factor, live = self._factors[i], self._live[i]
                found = weight if factor is None else weight.mul_(factor)
                # Numbers are moved to other places faster once they are small.
                live.copy_(found if live.is_contiguous() else found.to(live.dtype))
        self._written = k

    def _staged(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Give memory for masked weights of these shapes."""
        staged, at = [], 0
        for weight in weights:
            staged.append(self._stage[at : at + weight.nbytes].view(weight.dtype).view_as(weight))
            at += _room(weight)
        return staged

    def _groups(self) -> list[list[int]]:
        """Cut the weights in groups that are masked by one call each."""
        if isinstance(self._saliency, tuple):
            return [list(range(len(self._live)))]  # a random mask counts the tensors of its call
        groups: list[list[int]] = [[]]
        room = _STAGE_BYTES
        for i, weight in enumerate(self._pristine):
            if groups[-1] and weight.nbytes > room:
                groups.append([])
                room = _STAGE_BYTES
            groups[-1].append(i)
            room -= weight.nbytes
        return groups


def _room(weight: Tensor) -> int:
    """Count the bytes of a tensor up to where vectors may begin again."""
    return -(-weight.nbytes // 64) * 64


def cache_sized(inputs: Tensor, dtype: torch.dtype, pixels: int = _PIXELS) -> list[Tensor]:
    """Cut a batch of pictures in parts that suit a CPU's caches; other inputs stay whole.

    Args:
        inputs: (N, …).
        dtype: that floating-point inputs get.
        pixels: of a part.
    """
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)
    if inputs.dim() != 4 or inputs.device.type != "cpu" or not len(inputs):
        return [inputs]
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    return list(torch.split(inputs, max(1, pixels // max(1, inputs[0, 0].numel()))))


def copied(model: nn.Module) -> nn.Module:
    """Copy a model, for evaluation only.

    Raises:
        ValueError: it holds what cannot be copied.
    """
    try:
        # Tensors of inference mode would refuse what a forward outside of it writes to them.
        with torch.inference_mode(False):
            twin = copy.deepcopy(model)
    except Exception as error:  # a module may hold anything
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}), and its "
            "sub-models are made in a copy: take what is neither tensor nor module out of it"
        ) from error
    return twin.eval().requires_grad_(False)


def cast(model: nn.Module, dtype: torch.dtype, apart: Collection[nn.Module]) -> None:
    """Bring a model to a dtype, in place, and modules `apart` to float32."""
    kept = [
        (parameter, parameter.detach().float())
        for module in apart
        for parameter in module.parameters(recurse=False)
    ]
    model.to(dtype)
    for parameter, values in kept:
        parameter.data = values


def _owners(model: nn.Module, weights: Sequence[Tensor]) -> list[nn.Module]:
    """Find the modules that hold these parameters, in the order of the modules."""
    wanted = {id(weight) for weight in weights}
    return [
        module
        for module in model.modules()
        if any(id(weight) in wanted for weight in module.parameters(recurse=False))
    ]
