"""Masking: which weights of a model are masked, and the threshold of each capacity.

A weight lives in sub-model k while its saliency s ≥ t_k. Saliency is |w|, a random number drawn by
the weight's index, a given tensor, or where these tie the number of sub-models that keep the
weight; the masks of a path are nested by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import nn

from lc_engine._util.digests import config_digest, tensors_digest
from lc_engine.ops import contract, levels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from lc_engine.path.learning_path import LearningPath

    Choice = Callable[[str, nn.Module], bool]

Kind = Literal["magnitude", "random", "given", "dropout"]
Scope = Literal["global", "layer"]
Which = Literal["body", "head", "all"]

# Attention keeps the weights of its input projections itself, not in a Linear module.
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

# Layers of timm and transformers that compute the weight in use from their parameter.
_COMPUTING_LAYERS = frozenset(
    {
        "StdConv2d",
        "StdConv2dSame",
        "ScaledStdConv2d",
        "ScaledStdConv2dSame",
        "WeightStandardizedConv2d",
        "AutoBitLinear",
    }
)


class Masks(NamedTuple):
    """The masks of K sub-models: sub-model k keeps the weights with s ≥ t_k.

    Attributes:
        thresholds: (K, T) float64 t_k of each tensor, on the host.
        saliency: s as the operators take it: None for |w|, ("random", seed), or T tensors beside
            the weights.
    """

    thresholds: Tensor
    saliency: list[Tensor] | tuple[Literal["random"], int] | None


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

    def find(self, model: nn.Module, head: str | None) -> dict[str, nn.Parameter]:
        """Return the weights to mask, by parameter name, in the order of the modules.

        Args:
            model: any module; it is not changed.
            head: name of the classifier module ("" for the model itself), None if it has none.

        Raises:
            ValueError: no weight to mask; a weight that is quantized, not of floating point,
                computed at every forward, not initialised, or shared with a parameter that
                is not masked; or weights on several devices.
        """
        chosen: dict[str, nn.Parameter] = {}
        names: dict[int, str] = {}
        owners: set[int] = set()
        for name, module in model.named_modules():
            _refuse_quantized(name, module)
            attributes = _weight_names(module)
            if attributes and self._chooses(name, module, head):
                owners.add(id(module))
                for attribute in attributes:
                    full = f"{name}.{attribute}" if name else attribute
                    parameter = _checked_parameter(full, module, attribute)
                    # A weight that two masked layers share is one weight, and counts once.
                    if parameter.numel() and parameter.data_ptr() not in names:
                        names[parameter.data_ptr()] = full
                        chosen[full] = parameter
        if not chosen:
            raise ValueError(self._nothing_found(model, head))
        _refuse_tied(model, names, owners)
        devices = sorted({str(parameter.device) for parameter in chosen.values()})
        if len(devices) > 1:
            raise ValueError(f"the weights to mask are on several devices: {', '.join(devices)}")
        return chosen

    def _chooses(self, name: str, module: nn.Module, head: str | None) -> bool:
        if callable(self.weights):
            return bool(self.weights(name, module))
        in_head = head is not None and (head == "" or name == head or name.startswith(head + "."))
        return self.weights == "all" or in_head == (self.weights == "head")

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
        pools = self._pools([_host(name, score) for name, score in self._scores(weights)])
        rows = [(levels.quantiles(_joined(pool), _counts(pool, path))[0], pool) for pool in pools]
        return _table(rows)

    def masks(self, weights: Mapping[str, Tensor], path: LearningPath) -> Masks:
        """Return the masks of a path as the operators take them, exact where saliencies tie.

        Sub-model k keeps `path.keep_counts` weights, and a random mask those with u ≥ 1 − r. Where
        weights that tie with a threshold would add more than 0.1 % of all weights, the masks are
        those of `ops.levels`, which keep neither more nor fewer.

        Args:
            weights: T tensors by name, as `find` returns them.
            path: the K capacities.

        Raises:
            ValueError: see `thresholds`.
        """
        if self.kind in ("random", "dropout"):
            random: tuple[Literal["random"], int] = ("random", self.seed)
            removed = self._removed(len(weights), path)
            return Masks(removed, random if self.kind == "random" else None)
        tensors = list(weights.values())
        pools = self._pools([_host(name, score) for name, score in self._scores(weights)])
        found = [levels.quantiles(_joined(pool), _counts(pool, path)) for pool in pools]
        if not any(too_many for _, too_many in found):
            rows = [(bounds, pool) for (bounds, _), pool in zip(found, pools, strict=True)]
            return Masks(_table(rows), self._given(weights))
        saliency: list[Tensor] = []
        rows = []
        for (bounds, _), pool in zip(found, pools, strict=True):
            counts, streams = _counts(pool, path), range(len(saliency), len(saliency) + len(pool))
            own = [tensors[i] for i in streams]
            saliency += levels.levels(pool, own, streams, bounds, counts)
            whole = np.arange(1.0, len(counts) + 1)
            rows.append((np.where(np.array(counts) > 0, whole, np.inf), pool))
        return Masks(_table(rows), saliency)

    def _removed(self, tensors: int, path: LearningPath) -> Tensor:
        """Return the thresholds of random masks: the fraction removed."""
        random = 1.0 - torch.tensor(path.capacities, dtype=torch.float64)
        return random.unsqueeze(1).repeat(1, tensors)

    def _pools(self, scores: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Return the saliencies, grouped by those that share their thresholds."""
        return [scores] if self.scope == "global" else [[score] for score in scores]

    def _scores(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield the saliencies in the dtype in which the operators compare them."""
        dtypes = {name: contract.compute_dtype(weight.dtype) for name, weight in weights.items()}
        if self.saliency is None:
            for name, weight in weights.items():
                yield name, weight.detach().abs().to(dtypes[name])
            return
        missing = [name for name in weights if name not in self.saliency]
        if missing:
            raise ValueError(
                f"saliency lacks {len(missing)} of {len(weights)} masked weights, such as "
                f'"{missing[0]}"; it has {", ".join(sorted(self.saliency)[:3]) or "none"} …'
            )
        for name, weight in weights.items():
            score = self.saliency[name]
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
        return [
            self.saliency[name].detach().to(weight.device).contiguous()
            for name, weight in weights.items()
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


def _weight_names(module: nn.Module) -> list[str]:
    """Return the names of a module's attributes that hold convolution or linear weights."""
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return ["weight"]
    if _is_transposed_linear(module):
        return ["weight"]
    if isinstance(module, nn.MultiheadAttention):
        return [name for name in _ATTENTION_WEIGHTS if getattr(module, name) is not None]
    return []


def _is_transposed_linear(module: nn.Module) -> bool:
    """Return whether a module is GPT-2's `Conv1D`: a linear layer whose weight is (in, out)."""
    weight = module._parameters.get("weight")
    named = any(base.__name__ == "Conv1D" for base in type(module).__mro__)
    return (
        named
        and weight is not None
        and weight.dim() == 2
        and weight.shape[1] == getattr(module, "nf", None)
    )


def _refuse_quantized(name: str, module: nn.Module) -> None:
    # Matched by package: these cannot be recognized by their weight.
    if ".quantized" in type(module).__module__:
        raise ValueError(
            f'module "{name}" is quantized ({type(module).__name__}): masks need floating-point '
            "weights; score the model before it is quantized"
        )


def _checked_parameter(name: str, module: nn.Module, attribute: str) -> nn.Parameter:
    parameter = module._parameters.get(attribute)
    if parameter is None:
        raise ValueError(
            f'weight "{name}" is computed at every forward (a parametrisation, weight_norm or '
            "torch.nn.utils.prune): make it permanent first, for instance with "
            "torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.prune.remove"
        )
    computing = [base for base in type(module).__mro__ if base.__name__ in _COMPUTING_LAYERS]
    if computing:
        raise ValueError(
            f'weight "{name}" is standardized or quantized at every forward '
            f"({type(module).__name__}), so a mask would not reach the weight in use: replace the "
            "layer by a plain nn.Conv2d or nn.Linear that holds the weight in use"
        )
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ValueError(
            f'weight "{name}" has no shape yet (a lazy module): run the model on one batch first'
        )
    if parameter.is_meta:
        raise ValueError(
            f'weight "{name}" is on the meta device and has no values: load them first'
        )
    if type(parameter) is not nn.Parameter or not parameter.is_floating_point():
        raise ValueError(
            f'weight "{name}" is a {type(parameter).__name__} of {parameter.dtype}: masks need '
            "plain floating-point weights; score the model before it is quantized or sharded"
        )
    if parameter.is_inference():
        raise ValueError(
            f'weight "{name}" was made under torch.inference_mode() and cannot be masked in '
            "place: build the model outside of it"
        )
    return parameter


def _refuse_tied(model: nn.Module, masked: Mapping[int, str], owners: set[int]) -> None:
    """Refuse a masked weight whose memory is also a parameter that must stay as it is."""
    for name, module in model.named_modules():
        if id(module) in owners:
            continue
        for attribute, parameter in module._parameters.items():
            if parameter is None or not parameter.numel() or parameter.data_ptr() not in masked:
                continue
            raise ValueError(
                f'weight "{masked[parameter.data_ptr()]}" is tied to "{name}.{attribute}", which '
                "is not masked: untie them (clone one), or choose other weights with "
                "Masking(weights=function)"
            )


def _host(name: str, score: Tensor) -> np.ndarray:
    """Return a saliency on the host, flat."""
    values = score.cpu().reshape(-1).numpy()
    if np.isnan(values).any():
        raise ValueError(f'the saliency of "{name}" holds NaN: is the checkpoint damaged?')
    return values


def _joined(pool: list[np.ndarray]) -> np.ndarray:
    return pool[0] if len(pool) == 1 else np.concatenate(pool)


def _counts(pool: list[np.ndarray], path: LearningPath) -> list[int]:
    return path.keep_counts(sum(score.size for score in pool))


def _table(rows: list[tuple[np.ndarray, list[np.ndarray]]]) -> Tensor:
    """Return thresholds (K, T) from those of each pool (K,), which its tensors share."""
    columns = [bounds for bounds, pool in rows for _ in pool]
    return torch.from_numpy(np.stack(columns, axis=1))
