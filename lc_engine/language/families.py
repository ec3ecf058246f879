"""Families of sub-models of a language model: masked weights, or dropout on residual branches.

Masks are those of `lc_engine.Submodels`, but for the vocabulary head: it is masked inside
`ops.token_nll`, so that an embedding tied to it stays whole.

Dropout acts where transformers are trained with it, on the output of every attention and
feed-forward block before it is added to the residual stream (Vaswani et al., "Attention is all you
need", 2017, section 5.4):

    sub-model k: y_i ↦ y_i [u_i ≥ 1 − r_k] / r_k

u_i is a Philox number of the block, the position in the row and the channel, not of the row: every
row sees the same sub-model, so its score does not depend on the batch. What is dropped at one rate
is dropped at all higher rates.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from lc_engine.masking.account import account_of
from lc_engine.models.state import evaluating
from lc_engine.ops import philox
from lc_engine.submodels import Family, HeadMask, Submodels, describe_ties

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from lc_engine.masking import MaskAccount, Masking
    from lc_engine.path.learning_path import LearningPath

# Positions are drawn in multiples of this, so that rows of similar length share the draw.
_POSITIONS: Final = 256


class LanguageFamily(Family, ABC):
    """Sub-models of a causal language model, made one after the other in the model itself.

    Args:
        model: a causal language model.
        path: the K capacities.
        weights: the masked weights by name.

    Attributes:
        reads_positions: whether a sub-model depends on the positions of tokens, which are then
            those of a padded batch.
    """

    reads_positions = False

    def __init__(self, model: nn.Module, path: LearningPath, weights: Mapping[str, Tensor]) -> None:
        super().__init__(path, weights)
        self.model = model

    @abstractmethod
    def in_use(self) -> AbstractContextManager[None]:
        """Hold the model in evaluation mode, ready for `at`; it is restored bit for bit."""

    @abstractmethod
    def at(self, k: int) -> None:
        """Make the model sub-model k."""

    def begin_at(self, position: int) -> None:
        """Set the position in the rows at which the next forward begins; masks ignore it."""

    @property
    def first_equal(self) -> tuple[int, ...]:
        """For each sub-model the first that is the same network."""
        return tuple(range(len(self.path)))

    def groups(self) -> list[list[int]]:
        """Return the indices of different sub-models, grouped by those that share one body."""
        return [[k] for k in sorted(set(self.first_equal))]


def family_of(
    model: nn.Module, head_name: str, path: LearningPath, masking: Masking
) -> LanguageFamily:
    """Return the sub-models of a model; see `MaskedFamily` and `DropoutFamily`."""
    if masking.kind == "dropout":
        return DropoutFamily(model, path, masking.seed)
    return MaskedFamily(model, head_name, path, masking)


class MaskedFamily(LanguageFamily):
    """Sub-models by masks: magnitude, random or given, over one layer or all.

    Args:
        model: a causal language model; its weights are masked in place and restored.
        head_name: of its vocabulary head.
        path: the K capacities.
        masking: which weights, and how.

    Attributes:
        body: the sub-models of the body; None if only the head is masked, and all K share it.

    Raises:
        ValueError: see `Submodels`.
    """

    def __init__(
        self, model: nn.Module, head_name: str, path: LearningPath, masking: Masking
    ) -> None:
        head = model.get_submodule(head_name)
        choice = masking.weights
        with_head = choice(head_name, head) if callable(choice) else choice in ("head", "all")
        self.body: Submodels | None = None
        self._head_mask: HeadMask | None = None
        weights: dict[str, Tensor] = {}
        if choice != "head":
            body = dataclasses.replace(masking, weights=_Outside(masking, head_name))
            self.body = Submodels(model, path, body, head=head_name)
            weights |= self.body.weights
        if with_head:
            # The head counts among the weights of a global threshold, as the last of them.
            name = f"{head_name}.weight"
            weights[name] = model.get_parameter(name)
            masks = masking.masks(weights, path)
            if self.body is not None:
                self.body.masks = masks.without_last()
            self._head_mask = HeadMask(*masks.of(len(weights) - 1, weights[name]))
        else:
            assert self.body is not None
            masks = self.body.masks
        self._masks, self._masking, self._head_name = masks, masking, head_name
        super().__init__(model, path, weights)

    @property
    def head_mask(self) -> HeadMask | None:
        """The mask of the vocabulary head; None if it is whole."""
        return self._head_mask

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the model in evaluation mode; it is restored bit for bit."""
        if self.body is None:
            with evaluating(self.model):
                yield
        else:
            with self.body:
                yield

    def at(self, k: int) -> None:
        """Make the model sub-model k."""
        if self.body is not None:
            self.body.at(k)

    def groups(self) -> list[list[int]]:
        """Return the indices of different sub-models, grouped by those that share one body."""
        return [sorted(set(self.first_equal))] if self.body is None else super().groups()

    @property
    def first_equal(self) -> tuple[int, ...]:
        """For each sub-model the first with the same masks."""
        return self._masks.first_equal

    @cached_property
    def account(self) -> MaskAccount:
        """What the masks reach."""
        return account_of(
            self.model, self._head_name, self._masking, self.weights, self._masks, self.path
        )

    def describe(self) -> dict[str, Any]:
        """Return which weights are masked, and how ties are broken, as JSON values."""
        return super().describe() | describe_ties(self._masks)


class DropoutFamily(LanguageFamily):
    """Sub-models by dropout on every residual branch; see the module for the formula.

    Args:
        model: a causal language model; hooks are registered while it is in use.
        path: the K capacities, r = 1 − rate.
        seed: 64 bits.

    Raises:
        ValueError: the model has no residual branches that are known.
    """

    reads_positions = True

    def __init__(self, model: nn.Module, path: LearningPath, seed: int) -> None:
        super().__init__(model, path, {})
        self.branches = residual_branches(model)
        self._seed = seed
        self._capacity = 1.0
        self._k = 0
        self._first = 0
        self._levels_of: dict[int, Tensor] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the model in evaluation mode, with dropout on its branches."""
        handles = [
            branch.register_forward_hook(self._hook(i)) for i, branch in enumerate(self.branches)
        ]
        try:
            with evaluating(self.model):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def at(self, k: int) -> None:
        """Make the model sub-model k."""
        self._k, self._capacity = k, self.path.capacities[k]

    def begin_at(self, position: int) -> None:
        """Set the position in the rows at which the next forward begins."""
        self._first = position

    def _hook(self, stream: int) -> Any:
        def drop(_: nn.Module, __: Any, output: Any) -> Any:
            if self._capacity == 1.0:
                return None
            if isinstance(output, tuple):
                return (self._dropped(output[0], stream), *output[1:])
            return self._dropped(output, stream)

        return drop

    def _dropped(self, value: Tensor, stream: int) -> Tensor:
        stop = self._first + value.shape[1]
        levels = self._levels(stream, stop, value.shape[2], value.device)
        kept = levels[self._first : stop] > self._k
        return value * (kept.to(value.dtype) / self._capacity)

    def _levels(self, stream: int, positions: int, width: int, device: torch.device) -> Tensor:
        """Return the number of sub-models that keep each (position, channel): the first ones.

        Stored as int16 in place of the uniform numbers; a longer draw begins with the shorter one.
        """
        levels = self._levels_of.get(stream)
        if levels is None or len(levels) < positions:
            rows = -(-positions // _POSITIONS) * _POSITIONS
            uniform = philox.uniform((rows, width), self._seed, stream)
            # Capacities fall, so the bounds 1 − r rise: kept by k where bound_k ≤ u.
            bounds = torch.tensor([1.0 - r for r in self.path.capacities], dtype=torch.float64)
            counts = torch.searchsorted(bounds, uniform.double(), right=True)
            levels = counts.to(torch.int16).to(device)
            self._levels_of[stream] = levels
        return levels


def residual_branches(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose outputs are added to the residual stream, in order.

    They are the children of each decoder layer that hold a weight matrix: attention and
    feed-forward, not the norms.

    Raises:
        ValueError: the model has no list of decoder layers.
    """
    whole: Any = model
    lists = [
        module for module in whole.get_decoder().children() if isinstance(module, nn.ModuleList)
    ]
    layers = max(lists, key=len, default=nn.ModuleList())
    found = [
        child
        for layer in layers
        for child in layer.children()
        if any(parameter.dim() > 1 for parameter in child.parameters())
    ]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no list of decoder layers, so dropout has no branches to "
            'act on: use masks, such as Masking("magnitude", scope="layer")'
        )
    return found


class _Outside:
    """The choice of weights of a masking, without the vocabulary head."""

    def __init__(self, masking: Masking, head_name: str) -> None:
        self._choice = masking.weights
        self._head_name = head_name

    def __call__(self, name: str, module: nn.Module) -> bool:
        if name == self._head_name:
            return False
        return self._choice(name, module) if callable(self._choice) else True
