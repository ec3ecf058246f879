"""The account of the masks: what was asked for, what is reached, and of which part of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from lc_engine.masking.maskable import MatrixCount, count_matrices, is_in_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from lc_engine.masking.masking import Masking
    from lc_engine.masking.masks import Masks
    from lc_engine.path.learning_path import LearningPath

# Capacities that an account warns of: what is reached differs by more from what was asked for.
_MISSED: Final = 0.01
# Share of the matrix weights below which an account warns that few can be masked.
_FEW: Final = 0.5
# Capacities that a line shows.
_SHOWN: Final = 12


class MaskingWarning(UserWarning):
    """The masks of a run are not what their capacities say."""


@dataclass(frozen=True)
class MaskAccount:
    """What the masks of K sub-models are.

    The matrices are those outside the head for `Masking(weights="body")`, those of the head for
    "head", else all; embeddings never count.

    Attributes:
        matrices: how many weights they have, and how many can be masked.
        capacities: K shares of the masked weights that were asked for.
        reached: K shares of the masked weights that are kept and not zero; None for dropout.
        reached_of_body: K shares of all matrix weights that are kept; None for dropout.
        masked: number of masked weights.
        first_equal: see `Masks`.
        missed: the first capacity below 1 that is missed by more than 0.01 beyond rounding, None
            for none. At 1 nothing is masked, whatever is zero by itself.
        emptiest: of the masked weights the one with most zeros: name, dtype, share of zeros; None
            where neither is a capacity missed nor do sub-models coincide.
    """

    matrices: MatrixCount
    capacities: tuple[float, ...]
    reached: tuple[float, ...] | None
    reached_of_body: tuple[float, ...] | None
    masked: int
    first_equal: tuple[int, ...]
    missed: int | None
    emptiest: tuple[str, str, float] | None

    @property
    def maskable_share(self) -> float:
        """The share of the matrix weights that can be masked at all."""
        return self.matrices.maskable / self.matrices.total if self.matrices.total else 1.0

    @property
    def groups(self) -> list[list[int]]:
        """The sub-models that are one network, in groups of two and more."""
        of: dict[int, list[int]] = {}
        for k, first in enumerate(self.first_equal):
            of.setdefault(first, []).append(k)
        return [group for group in of.values() if len(group) > 1]

    def recorded(self) -> dict[str, Any]:
        """Return the fields of a manifest."""
        path: dict[str, Any] = {"first_equal": list(self.first_equal)}
        if self.reached is not None and self.reached_of_body is not None:
            path |= {
                "reached": list(self.reached),
                "reached_of_body": list(self.reached_of_body),
            }
        warning = self.warning()
        said = {} if warning is None else {"mask_warning": warning}
        return {"maskable_share": self.maskable_share, "path": path} | said

    def line(self) -> str:
        """Return the account in one line."""
        share = (
            f"masks: {self.maskable_share:.1%} of {self.matrices.total:,} matrix weights can be "
            "masked"
        )
        if self.reached is None or self.reached_of_body is None:
            return f"{share}; none is, as dropout acts on the inputs of their layers"
        if self.capacities == (1.0,):
            return f"{share}; none is, as the whole model alone is run"
        share = f"{share}, {self.masked:,} are"
        shown = slice(0, _SHOWN)
        more = ", …" if len(self.capacities) > _SHOWN else ""
        rows = [
            f"{name} {', '.join(f'{r:.4g}' for r in values[shown])}{more}"
            for name, values in (
                ("capacity asked", self.capacities),
                ("reached", self.reached),
                ("of the body", self.reached_of_body),
            )
        ]
        return "; ".join([share, *rows, *self._coincide()])

    def warning(self) -> str | None:
        """Return what is not as the capacities say, and what to do; None if all is."""
        found = []
        if self.maskable_share < _FEW and self.matrices.largest is not None:
            name, kind, dtype = self.matrices.largest
            found.append(
                f"only {self.maskable_share:.1%} of the {self.matrices.total:,} matrix weights can "
                f'be masked; the largest that cannot is "{name}" ({kind}, {dtype}): use a model '
                "whose layers are plain linear layers, convolutions or fused experts of floating "
                "point, or read every capacity as that of the part that is masked"
            )
        where = ""
        if self.emptiest is not None:
            name, dtype, zeros = self.emptiest
            where = f' (most of all in "{name}", {dtype}, of which {zeros:.1%} are zero)'
        if self.missed is not None and self.reached is not None:
            found.append(
                f"capacity {self.capacities[self.missed]:.4g} was asked for and "
                f"{self.reached[self.missed]:.4g} is reached{where}: choose capacities up to "
                f"{max(self.reached):.4g}, or score the model before it was quantized or pruned"
            )
            where = ""
        if self.groups:
            found.append(
                f"{'; '.join(self._coincide())}{where}: give a path whose capacities differ in "
                "weights that are not zero"
            )
        return f"masks: {'. Also '.join(found)}." if found else None

    def _coincide(self) -> list[str]:
        return [
            f"capacities {', '.join(f'{self.capacities[k]:.4g}' for k in group)} are one "
            "sub-model, which runs once"
            for group in self.groups
        ]


def account_of(
    model: nn.Module,
    head: str | None,
    masking: Masking,
    weights: Mapping[str, Tensor],
    masks: Masks,
    path: LearningPath,
) -> MaskAccount:
    """Return the account of masks.

    Args:
        model: any module.
        head: name of its classifier ("" for the model itself), None if it has none.
        masking: how it is masked.
        weights: the masked weights by name.
        masks: of the path.
        path: the K capacities.
    """

    def counts(name: str) -> bool:
        which = masking.weights
        if which == "head" or which == "body":
            return is_in_head(name, head) == (which == "head")
        return True

    matrices = count_matrices(model, counts)
    masked = sum(weight.numel() for weight in weights.values())
    if not masks.kept:  # dropout
        whole = tuple(range(len(path)))
        return MaskAccount(matrices, path.capacities, None, None, 0, whole, None, None)
    missed = _missed(masking, weights, masks, path)
    odd = missed is not None or len(set(masks.first_equal)) < len(path)
    total = max(matrices.total, masked)
    return MaskAccount(
        matrices,
        path.capacities,
        tuple(kept / masked for kept in masks.kept),
        tuple((kept + total - masked) / total for kept in masks.kept),
        masked,
        masks.first_equal,
        missed,
        _emptiest(weights) if odd else None,
    )


def _missed(
    masking: Masking, weights: Mapping[str, Tensor], masks: Masks, path: LearningPath
) -> int | None:
    """Return the first masked sub-model that misses its capacity, beyond rounding and the draw."""
    masked = sum(weight.numel() for weight in weights.values())
    for k, (kept, wanted) in enumerate(zip(masks.kept, masking.wanted(weights, path), strict=True)):
        share = wanted / masked
        drawn = 4 * (share * (1 - share) / masked) ** 0.5 if masking.kind == "random" else 0.0
        if path.capacities[k] < 1 and abs(kept / masked - share) > _MISSED + drawn:
            return k
    return None


def _emptiest(weights: Mapping[str, Tensor]) -> tuple[str, str, float] | None:
    """Return name, dtype and share of zeros of the weight with most zeros, None if none has any."""
    zeros = {
        name: weight.numel() - int(torch.count_nonzero(weight)) for name, weight in weights.items()
    }
    name = max(zeros, key=lambda one: zeros[one])
    if not zeros[name]:
        return None
    weight = weights[name]
    return name, str(weight.dtype).removeprefix("torch."), zeros[name] / weight.numel()
