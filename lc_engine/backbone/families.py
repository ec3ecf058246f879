"""The sub-models of one model: by masks, by dropout or by early exits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lc_engine.backbone.dtypes import check_int8
from lc_engine.backbone.early_exits import ExitCopy, Exits
from lc_engine.backbone.interface import OwnClassifier
from lc_engine.backbone.optimized import OptimizedCopy
from lc_engine.masking.account import account_of
from lc_engine.masking.maskable import is_in_head
from lc_engine.submodels import Family, HeadMask, describe_ties

if TYPE_CHECKING:
    from lc_engine.backbone.interface import Views
    from lc_engine.data.fields import Inputs
    from lc_engine.masking import MaskAccount, Masking
    from lc_engine.models.classifier import Tap
    from lc_engine.path.learning_path import LearningPath


class BackboneFamily(Family, ABC):
    """Sub-models of a model that maps a batch of tensors to features."""

    @property
    def masks_head_alone(self) -> bool:
        """Whether no masked weight is outside the classifier, so that no feature changes."""
        return False

    @abstractmethod
    def views(self, example: Inputs, dtype: torch.dtype, compiles: bool = False) -> Views:
        """Return the sub-models, ready to run.

        Args:
            example: (N, …) inputs of the shape that they will get, on the model's device.
            dtype: that they compute in; torch.int8 for layers, see `OptimizedCopy`.
            compiles: whether forwards are compiled, where they are those of masked weights.

        Raises:
            ValueError: the model has no layers that can be multiplied in int8, or see
                `check_int8`.
        """


class MaskedFamily(BackboneFamily):
    """Sub-models by masks on weights.

    Args:
        tap: the model and its classifier.
        masking: which weights, and how.
        path: the K capacities.

    Raises:
        ValueError: see `Masking.find` and `Masking.masks`.
    """

    def __init__(self, tap: Tap, masking: Masking, path: LearningPath) -> None:
        super().__init__(path, masking.find(tap.model, tap.name))
        self._tap = tap
        self._masking = masking
        self._masks = masking.masks(self.weights, path)

    @property
    def head_mask(self) -> HeadMask | None:
        """The classifier's mask where it is all that is masked."""
        head = self._tap.module
        masked = [*self.weights.values()]
        if not isinstance(head, nn.Linear) or len(masked) > 1 or masked[0] is not head.weight:
            return None
        return HeadMask(*self._masks.of(0, masked[0]))

    @property
    def masks_head_alone(self) -> bool:
        """Whether they are all the classifier's."""
        return all(is_in_head(name, self._tap.name) for name in self.weights)

    @cached_property
    def account(self) -> MaskAccount:
        """What the masks reach."""
        tap = self._tap
        return account_of(tap.model, tap.name, self._masking, self.weights, self._masks, self.path)

    def describe(self) -> dict[str, Any]:
        """Return which weights are masked, and how ties are broken, as JSON values."""
        return super().describe() | describe_ties(self._masks)

    def views(self, example: Inputs, dtype: torch.dtype, compiles: bool = False) -> Views:
        """Return the sub-models; a model that is its own classifier as it is."""
        if dtype == torch.int8:
            _check_int8(example.device, has_layers=self._tap.name != "")
        if self._tap.name == "":
            return OwnClassifier(self._tap)
        return OptimizedCopy(
            self._tap.model,
            self.weights,
            self._masks,
            self._masking,
            self._tap.name,
            dtype,
            example,
            compiles,
        )


class DropoutFamily(MaskedFamily):
    """Sub-models by dropout before the layers that `masking.weights` chooses.

    Raises:
        ValueError: see `Masking.find`; the model is nothing but its classifier.
    """

    def __init__(self, tap: Tap, masking: Masking, path: LearningPath) -> None:
        super().__init__(tap, masking, path)
        if tap.name == "":
            raise ValueError(
                'masking: kind="dropout" needs a model with layers before its classifier'
            )

    @property
    def masks_head_alone(self) -> bool:
        """False: what is dropped before the classifier are the features."""
        return False

    @property
    def head_mask(self) -> None:
        """None: dropout leaves the weights whole."""
        return None


class ExitFamily(BackboneFamily):
    """Sub-models that end at early exits.

    Args:
        tap: the model and its classifier.
        exits: where it is cut off.

    Raises:
        ValueError: see `Exits.find`.
    """

    def __init__(self, tap: Tap, exits: Exits) -> None:
        self._tap = tap
        self._modules = exits.find(tap.model, tap.name)
        super().__init__(exits.path(len(self._modules)), {})

    def views(self, example: Inputs, dtype: torch.dtype, compiles: bool = False) -> Views:
        """Return the sub-models, all of which run in one forward."""
        if dtype == torch.int8:
            _check_int8(example.device, has_layers=False)
        return ExitCopy(self._tap.model, self._modules, self._tap.name, dtype)

    def describe(self) -> dict[str, Any]:
        """Return which exits were found, as JSON values."""
        return {"modules": list(self._modules)}


def family_of(masking: Masking | Exits, tap: Tap, path: LearningPath) -> BackboneFamily:
    """Return the sub-models of a model.

    Args:
        masking: how they come about.
        tap: the model and its classifier.
        path: the K capacities; exits bring their own.

    Raises:
        ValueError: `masking` does not fit the model.
    """
    if isinstance(masking, Exits):
        return ExitFamily(tap, masking)
    family = DropoutFamily if masking.kind == "dropout" else MaskedFamily
    return family(tap, masking, path)


def _check_int8(device: torch.device, has_layers: bool) -> None:
    if not has_layers:
        raise ValueError('dtype: "int8" is for masked layers before a classifier: use "auto"')
    check_int8(device)
