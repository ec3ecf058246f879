"""Write the masked weights of one sub-model after the other into a copy of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine import ops
from lc_engine.backbone import tuning
from lc_engine.masking.maskable import matrix_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from lc_engine.masking import Masks

WHOLE = -1


class MaskedWeights:
    """The masked weights of K sub-models.

    Args:
        weights: T masked parameters of the model by name; they are read only.
        masks: of the K sub-models.
        copy: of the model, whose parameters of the same names are written.
        factors: by name, what a masked weight is multiplied by.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        masks: Masks,
        copy: nn.Module,
        factors: Mapping[str, Tensor],
    ) -> None:
        self._pristine = [weight.detach().contiguous() for weight in weights.values()]
        self._masks = masks
        self._live = [matrix_at(copy, name) for name in weights]
        self._factors = [factors.get(name) for name in weights]
        # One buffer for all groups, at the address that a CUDA graph captured.
        most = max(sum(_room(self._pristine[i]) for i in group) for group in self._groups())
        self._stage = self._pristine[0].new_empty(most, dtype=torch.uint8)

    def write(self, k: int) -> None:
        """Write the weights of sub-model k, or the unmasked weights (`WHOLE`)."""
        whole = [-torch.inf] * len(self._live)
        saliency = self._masks.saliency
        thresholds = whole if k == WHOLE else self._masks.thresholds[k].tolist()
        dropped = None if k == WHOLE else self._masks.dropped_at(k)
        for group in self._groups():
            pristine = [self._pristine[i] for i in group]
            staged = self._staged(pristine)
            ops.apply_thresholds(
                pristine,
                staged,
                [thresholds[i] for i in group],
                [saliency[i] for i in group] if isinstance(saliency, list) else saliency,
                dropped=None if dropped is None else [dropped[i] for i in group],
            )
            for i, weight in zip(group, staged, strict=True):
                factor, live = self._factors[i], self._live[i]
                found = weight if factor is None else weight.mul_(factor)
                # Cast before a transposition, which is faster on fewer bytes.
                live.copy_(found if live.is_contiguous() else found.to(live.dtype))

    def _staged(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return views of the stage with the shapes of weights."""
        staged, offset = [], 0
        for weight in weights:
            part = self._stage[offset : offset + weight.nbytes]
            staged.append(part.view(weight.dtype).view_as(weight))
            offset += _room(weight)
        return staged

    def _groups(self) -> list[list[int]]:
        """Return the indices of the weights, in groups that are masked by one call each."""
        if isinstance(self._masks.saliency, tuple):
            return [list(range(len(self._live)))]  # a random key counts the tensors of its call
        groups: list[list[int]] = [[]]
        room = tuning.STAGE_BYTES
        for i, weight in enumerate(self._pristine):
            if groups[-1] and weight.nbytes > room:
                groups.append([])
                room = tuning.STAGE_BYTES
            groups[-1].append(i)
            room -= weight.nbytes
        return groups


def _room(weight: Tensor) -> int:
    """Return the bytes of a tensor, rounded up to the alignment of vectors."""
    return -(-weight.nbytes // 64) * 64
