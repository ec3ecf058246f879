"""Masking: which weights of a model are masked, and the threshold of each capacity.

A weight lives in sub-model k while its saliency s ≥ t_k. Saliency is |w|, a random number drawn by
the weight's index, a given tensor, or where these tie the number of sub-models that keep the
weight; the masks of a path are nested by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import nn

from lc_engine._util.digests import config_digest, tensors_digest
from lc_engine.masking.maskable import (
    entry_of,
    is_in_head,
    matrices,
    refuse_adapter,
    refuse_packed,
    refuse_quantized,
    refuse_tied,
    weight_names,
)
from lc_engine.masking.masks import Masks
from lc_engine.ops import contract, levels, philox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from lc_engine.path.learning_path import LearningPath

    Choice = Callable[[str, nn.Module], bool]

T = TypeVar("T")
Kind = Literal["magnitude", "random", "given", "dropout"]
Scope = Literal["global", "layer"]
Which = Literal["body", "head", "all"]

# Most weights whose random masks are counted and not estimated: beyond, the share that is kept
# differs from the one asked for by less than 0.004 (four standard deviations).
_COUNTED: Final = 1 << 18


@dataclass(frozen=True, eq=False)
class Masking:
    """How a model is masked. Biases, norm layers and embeddings never are.

    Attributes:
        kind: "magnitude" (s = |w|), "random" (s = u, a Philox number in [0, 1) per weight),
            "given" (s = `saliency`), or "dropout": no weight is masked, but before each layer
            chosen by `weights` a share 1 − r of its inputs is dropped, the same for all samples.
        scope: "global", one quantile over all masked weights, or "layer", one per tensor. A
            random mask keeps u ≥ 1 − r, which is the same in both.
        weights: "body", every convolution and linear weight outside the head; "head", the
            head's; "all"; or a function (module name, module) -> bool that chooses among "all".
        seed: of a random mask or of dropout, a 64-bit number.
        saliency: of kind "given", a tensor per masked weight by its parameter's name, such as
            "layer1.0.conv1.weight". Names of weights that are not masked are ignored.

    Raises:
        ValueError: naming the field that does not fit.
    """

    kind: Kind = "magnitude"
    scope: Scope = "global"
    weights: Which | Choice = "body"
    seed: int = 0
    saliency: Mapping[str, Tensor] | None = None

    # Whether the sub-models have points of their own; see `Exits`.
    brings_path: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, get_args(Kind)),
            ("scope", self.scope, get_args(Scope)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")
        if not callable(self.weights) and self.weights not in get_args(Which):
            raise ValueError(
                f"weights must be one of {get_args(Which)} or a function (name, module) -> bool, "
                f"got {self.weights!r}"
            )
        if (self.kind == "given") != (self.saliency is not None):
            raise ValueError(
                'saliency must be given with kind="given", a tensor per masked weight, and only '
                "then"
            )

    def check_head(self, head: str) -> None:
        """Refuse a head that would see the same features K times.

        Args:
            head: "prototype", "linear" or "knn".

        Raises:
            ValueError: saying what to use.
        """
        if head != "linear" and self.weights == "head":
            raise ValueError(
                f'masking: weights="head" changes no feature, so a {head} head would see the '
                'same model K times: use weights="body", or head="linear"'
            )

    def find(self, model: nn.Module, head: str | None) -> dict[str, Tensor]:
        """Return the weights to mask, by parameter name, in the order of the modules.

        Of fused experts each matrix is a weight of its own, a view named "experts.down_proj[3]".

        Args:
            model: any module; it is not changed.
            head: name of the classifier module ("" for the model itself), None if it has none.

        Raises:
            ValueError: no weight to mask; a weight that is quantized, packed, an adapter's, not of
                floating point, computed at every forward, not initialised, or shared with a
                parameter that is not masked; or weights on several devices.
        """
        chosen: dict[str, Tensor] = {}
        names: dict[int, str] = {}
        owners: set[int] = set()
        for name, module in model.named_modules():
            refuse_quantized(name, module)
            refuse_adapter(name, module)
            if not callable(self.weights) and self._chooses(name, module, head):
                refuse_packed(name, module)
            attributes = weight_names(module)
            if attributes and self._chooses(name, module, head):
                owners.add(id(module))
                for attribute in attributes:
                    for full, weight in matrices(name, module, attribute):
                        # A weight that two masked layers share is one weight, and counts once.
                        if weight.numel() and weight.data_ptr() not in names:
                            names[weight.data_ptr()] = full
                            chosen[full] = weight
        if not chosen:
            raise ValueError(self._nothing_found(model, head))
        refuse_tied(model, names, owners)
        devices = sorted({str(parameter.device) for parameter in chosen.values()})
        if len(devices) > 1:
            raise ValueError(f"the weights to mask are on several devices: {', '.join(devices)}")
        return chosen

    def _chooses(self, name: str, module: nn.Module, head: str | None) -> bool:
        if callable(self.weights):
            return bool(self.weights(name, module))
        return self.weights == "all" or is_in_head(name, head) == (self.weights == "head")

    def _nothing_found(self, model: nn.Module, head: str | None) -> str:
        kind = type(model).__name__
        if callable(self.weights):
            return f"weights chose none of the convolution and linear weights of {kind}"
        if self.weights == "head" and head is None:
            return f'weights="head": {kind} has no classifier; name it with classifier="…"'
        where = {"body": " outside its head", "head": " in its head", "all": ""}[self.weights]
        hint = '; its head can be masked with weights="head"' if self.weights == "body" else ""
        return (
            f'weights="{self.weights}": {kind} has no convolution or linear weight{where}, so '
            f"all its sub-models would be the same{hint}"
        )

    def thresholds(self, weights: Mapping[str, Tensor], path: LearningPath) -> Tensor:
        """Return t_k of each weight tensor: (K, T) float64 on the host, ascending over k.

        s ≥ t_k keeps the `path.keep_counts` most salient, and all that tie with the last of them;
        `masks` keeps the exact count. +inf where it keeps none.

        Args:
            weights: T tensors by name, as `find` returns them.
            path: the K capacities.

        Raises:
            ValueError: a saliency that is missing, has the wrong shape or holds NaN.
        """
        if self.kind in ("random", "dropout"):
            return self._removed(len(weights), path)
        pools = self._pools(_without_nan([*self._scores(weights)]))
        found = [_quantiles(pool, _counts(pool, path)) for pool in pools]
        return _table(found, pools)

    def masks(self, weights: Mapping[str, Tensor], path: LearningPath) -> Masks:
        """Return the masks of a path as the operators take them, exact where saliencies tie.

        Sub-model k keeps `path.keep_counts` weights, and a random mask those with u ≥ 1 − r. Where
        weights that tie with a threshold would add more than 0.1 % of all weights, ties are broken
        by `ops.levels`, and neither more nor fewer are kept.

        Args:
            weights: T tensors by name, as `find` returns them.
            path: the K capacities.

        Raises:
            ValueError: see `thresholds`.
        """
        if self.kind in ("random", "dropout"):
            return self._random_masks(weights, path)
        tensors = list(weights.values())
        pools = self._pools(_without_nan([*self._scores(weights)]))
        counts = [_counts(pool, path) for pool in pools]
        found = [_quantiles(pool, n) for pool, n in zip(pools, counts, strict=True)]
        kept = np.zeros(len(path), dtype=np.int64)
        if not any(one.exceeds(n) for one, n in zip(found, counts, strict=True)):
            for one, pool, own in zip(found, pools, self._pools(tensors), strict=True):
                kept += one.kept - self._zeros_kept(pool, own, one.bounds)
            return Masks(_table(found, pools), self._given(weights), *_counted(kept))
        tied: list[levels.Tied] = []
        for one, pool, n in zip(found, pools, counts, strict=True):
            streams = range(len(tied), len(tied) + len(pool))
            tied += levels.break_ties(_host(pool), [tensors[i] for i in streams], streams, one, n)
        kept = self._kept_exactly(found, pools, tensors, tied)
        size = sum(weight.numel() for weight in tensors)
        if sum(ties.entries for ties in tied) <= levels.LISTED * size:
            dropped = tuple(
                tuple(ties.dropped(k).to(w.device) for ties, w in zip(tied, tensors, strict=True))
                for k in range(len(path))
            )
            table = _table(found, pools)
            return Masks(table, self._given(weights), *_counted(kept), dropped, breaks_ties=True)
        saliency: list[Tensor] = []
        for one, pool in zip(found, pools, strict=True):
            part = slice(len(saliency), len(saliency) + len(pool))
            saliency += levels.levels(_host(pool), tensors[part], tied[part], one.bounds)
        whole = torch.arange(1.0, len(path) + 1, dtype=torch.float64)
        table = whole[:, None].repeat(1, len(tensors))
        return Masks(table, saliency, *_counted(kept), breaks_ties=True)

    def _kept_exactly(
        self,
        found: list[levels.Quantiles],
        pools: list[list[Tensor]],
        weights: list[Tensor],
        tied: list[levels.Tied],
    ) -> np.ndarray:
        """Return how many weights that are not zero each sub-model keeps, once ties are broken."""
        kept = np.zeros(len(found[0].bounds), dtype=np.int64)
        for one, pool, own in zip(found, pools, self._pools(weights), strict=True):
            kept += one.kept - self._zeros_kept(pool, own, one.bounds)
        for ties, weight in zip(tied, weights, strict=True):
            index = torch.from_numpy(ties.where).to(weight.device)
            alive = (weight.detach().reshape(-1)[index] != 0).cpu().numpy()
            for k in range(len(kept)):
                kept[k] -= int((alive & (ties.kept <= k) & (k < ties.reached)).sum())
        return kept

    def _random_masks(self, weights: Mapping[str, Tensor], path: LearningPath) -> Masks:
        """Return random masks, or the rates of dropout."""
        removed = self._removed(len(weights), path)
        if self.kind == "dropout":
            return Masks(removed, None, (), tuple(range(len(path))))
        bounds = removed[:, 0].float()
        nonzero = [int(torch.count_nonzero(weight)) for weight in weights.values()]
        if sum(weight.numel() for weight in weights.values()) > _COUNTED:
            kept = [round(r * sum(nonzero)) for r in path.capacities]
            same = _first_equal(bounds.tolist())
        else:
            drawn = [
                philox.uniform(tuple(weight.shape), self.seed, stream)[(weight != 0).cpu()]
                for stream, weight in enumerate(weights.values())
            ]
            kept = [int((torch.cat(drawn) >= bound).sum()) for bound in bounds]
            same = _first_equal(kept)
        return Masks(removed, ("random", self.seed), tuple(kept), same)

    def wanted(self, weights: Mapping[str, Tensor], path: LearningPath) -> tuple[int, ...]:
        """Return how many of the weights each of the K sub-models of a path should keep."""
        sizes = [weight.numel() for weight in weights.values()]
        pools = sizes if self.scope == "layer" else [sum(sizes)]
        return tuple(map(sum, zip(*map(path.keep_counts, pools), strict=True)))

    def _zeros_kept(
        self, scores: list[Tensor], weights: list[Tensor], bounds: np.ndarray
    ) -> np.ndarray:
        """Return how many of the weights that are zero have s ≥ t, for K thresholds t."""
        if self.saliency is None:
            if not (bounds <= 0).any():
                return np.zeros(len(bounds), dtype=np.int64)
            zeros = sum(score.numel() - int(torch.count_nonzero(score)) for score in scores)
            return np.where(bounds <= 0, zeros, 0)
        dead = [
            score.reshape(-1)[(weight.detach() == 0).reshape(-1).to(score.device)]
            for score, weight in zip(scores, weights, strict=True)
        ]
        return _at_least(np.concatenate(_host(dead)), bounds)

    def _removed(self, tensors: int, path: LearningPath) -> Tensor:
        """Return the thresholds of random masks: the fraction removed."""
        random = 1.0 - torch.tensor(path.capacities, dtype=torch.float64)
        return random.unsqueeze(1).repeat(1, tensors)

    def _pools(self, tensors: list[T]) -> list[list[T]]:
        """Return what belongs to the tensors, grouped by those that share their thresholds."""
        return [tensors] if self.scope == "global" else [[one] for one in tensors]

    def _scores(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield the saliencies in the dtype in which the operators compare them."""
        dtypes = {name: contract.compute_dtype(weight.dtype) for name, weight in weights.items()}
        if self.saliency is None:
            for name, weight in weights.items():
                yield name, weight.detach().abs().to(dtypes[name])
            return
        found = {name: entry_of(self.saliency, name) for name in weights}
        missing = [name for name, score in found.items() if score is None]
        if missing:
            raise ValueError(
                f"saliency lacks {len(missing)} of {len(weights)} masked weights, such as "
                f'"{missing[0]}"; it has {", ".join(sorted(self.saliency)[:3]) or "none"} …'
            )
        for name, weight in weights.items():
            score = found[name]
            assert score is not None
            if score.shape != weight.shape or not score.is_floating_point():
                raise ValueError(
                    f'saliency["{name}"] must be a floating-point tensor of shape '
                    f"{tuple(weight.shape)}, got {score.dtype} {tuple(score.shape)}"
                )
            yield name, score.detach().to(dtypes[name])

    def _given(self, weights: Mapping[str, Tensor]) -> list[Tensor] | None:
        """Return the given saliency, tensors beside the weights; None for |w|."""
        if self.saliency is None:
            return None
        found = [(entry_of(self.saliency, name), weight) for name, weight in weights.items()]
        return [
            score.detach().to(weight.device).contiguous()
            for score, weight in found
            if score is not None
        ]

    @property
    def digest(self) -> str:
        """SHA-256 of `to_dict`, in hexadecimal."""
        return config_digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; a saliency by its digest, a function by its name."""
        choice = self.weights
        named = f"{choice.__module__}.{choice.__qualname__}" if callable(choice) else choice
        fields: dict[str, Any] = {"kind": self.kind, "scope": self.scope, "weights": named}
        if self.kind in ("random", "dropout"):
            fields["seed"] = self.seed
        if self.saliency is not None:
            fields["saliency"] = tensors_digest(sorted(self.saliency.items()))
        return fields


def _without_nan(scores: list[tuple[str, Tensor]]) -> list[Tensor]:
    """Return named saliencies without their names."""
    # Read together: a device is waited for once. Given ones may be on several.
    first = scores[0][1].device
    damaged = torch.stack([score.isnan().any().to(first) for _, score in scores]).cpu()
    if damaged.any():
        name = scores[int(damaged.int().argmax())][0]
        raise ValueError(f'the saliency of "{name}" holds NaN: is the checkpoint damaged?')
    return [score for _, score in scores]


def _host(scores: list[Tensor]) -> list[np.ndarray]:
    """Return saliencies on the host, flat."""
    return [score.cpu().reshape(-1).numpy() for score in scores]


def _quantiles(pool: list[Tensor], counts: list[int]) -> levels.Quantiles:
    """Return the thresholds of counts over the saliencies of a pool."""
    if _is_sorted_there(pool):
        return levels.device_quantiles(pool, counts)
    values = _host(pool)
    return levels.quantiles(values[0] if len(values) == 1 else np.concatenate(values), counts)


def _is_sorted_there(pool: list[Tensor]) -> bool:
    """Return whether saliencies are sorted on their device, and not partitioned on the host."""
    together = len({score.device for score in pool}) == 1
    return pool[0].is_cuda and together and sum(score.numel() for score in pool) <= levels.SORTED


def _counts(pool: list[Tensor], path: LearningPath) -> list[int]:
    return path.keep_counts(sum(score.numel() for score in pool))


def _table(found: list[levels.Quantiles], pools: list[list[Tensor]]) -> Tensor:
    """Return thresholds (K, T) from those of each pool (K,), which its tensors share."""
    columns = [one.bounds for one, pool in zip(found, pools, strict=True) for _ in pool]
    return torch.from_numpy(np.stack(columns, axis=1))


def _at_least(scores: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return how many of scores (N,) are at least each of the bounds (K,)."""
    return len(scores) - np.searchsorted(np.sort(scores), bounds, side="left")


def _counted(kept: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return `Masks.kept` and `first_equal`: nested masks are equal where their counts are."""
    counts = tuple(kept.tolist())
    return counts, _first_equal(counts)


def _first_equal(values: Sequence[float]) -> tuple[int, ...]:
    """Return the index of the first equal value of each."""
    return tuple(values.index(value) for value in values)
