"""linear_confidence: masked linear head, softmax and label confidence, for all K sub-models.

    logits_k = x · (W ⊙ [s ≥ t_k])ᵀ + b        p_k = softmax(logits_k)[label]        lc = Σ ω_k p_k

Learning complexity is defined in "Exploring Learning Complexity for Downstream Data Pruning"
(arXiv 2402.05356), section 3; masks on a head's own weights are its linear case.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, choices, contract, path_scores, philox
from lc_engine.ops import saliency as scores
from lc_engine.ops.custom_op import register_shapes
from lc_engine.ops.path_scores import PathScores
from lc_engine.ops.softmax_tiles import SoftmaxTiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lc_engine.kernels.linear_confidence import LinearHead
    from lc_engine.ops.contract import Backend
    from lc_engine.ops.saliency import Saliency

# Rows of a dense product. All are as large, the last one filled up: how a library sums may depend
# on the size of a product, and a score must not depend on its batch.
_ROWS = 256


def linear_confidence(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor | None,
    thresholds: Tensor | Sequence[float],
    *,
    path_weights: Tensor | Sequence[float] | None = None,
    saliency: Saliency = None,
    return_path: bool = False,
    backend: Backend = "auto",
) -> PathScores:
    """Score N samples under the K sub-models of a linear head, in one launch.

    Args:
        features: (N, D) float32, bfloat16 or float64 (reference only).
        weight: (C, D) of the head.
        bias: (C,) or None; never masked.
        labels: (N,) integers in [0, C), or None for each sub-model's largest probability.
        thresholds: (K,) ascending. Weight w with saliency s lives in sub-model k while s ≥ t_k.
        path_weights: (K,) ω, by default 1/K each.
        saliency: None for |w|; a tensor (C, D), or (K, C, D) where the masks are not nested;
            or ("random", seed) for numbers drawn by Philox.
        return_path: whether to return log p_k too.
        backend: "auto" takes the C++ core on a CPU, Triton on a GPU. Of a bfloat16 head with few
            sub-models on a CPU with AMX (`choices`) torch multiplies each, in tiles whose logits
            are rounded to bfloat16.

    Returns:
        PathScores in float32 (float64 for float64 features).

    Raises:
        ValueError: naming the argument that does not fit.
    """
    tensor, seed = scores.split(saliency)
    _check_batch(features, labels, weight)
    checks.check_kinds(bias=bias)
    thresholds = checks.as_numbers("thresholds", thresholds)
    if path_weights is not None:
        path_weights = checks.as_numbers("path_weights", path_weights)
    lc, loss, log_probs = torch.ops.lc_engine.linear_confidence(
        features, weight, bias, labels, thresholds, path_weights, tensor, seed, return_path, backend
    )
    return PathScores(lc, loss, log_probs if return_path else None)


class LinearPlan:
    """A linear head prepared once (its weights sorted into shells), run on any number of batches.

    The plan copies what it needs: later changes of `weight` do not reach it. It can be shared
    between threads. Arguments are those of `linear_confidence`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        thresholds: Tensor | Sequence[float],
        *,
        path_weights: Tensor | Sequence[float] | None = None,
        saliency: Saliency = None,
        backend: Backend = "auto",
    ) -> None:
        checks.check_tensor("weight", weight, ("C", "D"))
        classes, _ = weight.shape
        if classes < 1:
            raise ValueError("weight must have at least one class, got C = 0")
        if bias is not None:
            checks.check_tensor("bias", bias, (classes,), like=weight)
        self.backend = contract.resolve_backend(
            "linear_confidence", backend, weight.device, weight.dtype
        )
        dtype = contract.compute_dtype(weight.dtype)
        self.thresholds = checks.check_thresholds(
            "thresholds", checks.as_numbers("thresholds", thresholds), dtype
        )
        self.path_weights = checks.check_path_weights(
            path_weights, len(self.thresholds), weight.device
        )
        self.weight = weight.detach().clone(memory_format=torch.contiguous_format)
        self.bias = None if bias is None else bias.detach().clone().contiguous()
        tensor, self.seed = scores.split(saliency)
        self.saliency = self._given_saliency(tensor, dtype)
        self._native: dict[bool, object] = {}
        self._dense = self._prepare_dense(backend)
        if self.backend == "native" and not self._dense:
            self._prepare_native(self.weight.dtype)
        self._triton = self._prepare_triton() if self.backend == "triton" else None

    @property
    def nested(self) -> bool:
        """Whether a sparser sub-model's weights are always a subset of a denser one's."""
        return self.saliency is None or self.saliency.dim() == 2

    def masked(self, weight: Tensor, k: int) -> Tensor:
        """Return a copy of the weight (C, D) as it is in sub-model k."""
        saliency = self.saliency
        if saliency is None and self.seed is not None:  # which a kernel draws for itself
            saliency = philox.uniform(tuple(weight.shape), self.seed, device=weight.device)
        if saliency is not None and saliency.dim() == 3:
            saliency = saliency[k]
        return scores.keep(weight, saliency, self.thresholds[k].to(weight.device))

    def _given_saliency(self, tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        shape = tuple(self.weight.shape)
        if self.seed is not None and self.backend != "triton":  # a kernel draws its own
            return philox.uniform(shape, self.seed, device=self.weight.device).to(dtype)
        if tensor is None:
            return None
        if tensor.dim() == 3:
            shape = (len(self.thresholds), *shape)
        checks.check_tensor("saliency", tensor, shape, like=self.weight)
        return tensor.detach().to(dtype).clone(memory_format=torch.contiguous_format)

    def _prepare_native(self, features: torch.dtype) -> object:
        """Return the sorted head for features of a dtype; two bfloat16 factors have their own."""
        both = features == self.weight.dtype == torch.bfloat16
        if both not in self._native:
            self._native[both] = contract.native().LinearPlan(
                arrays.host_floats(self.weight),
                arrays.host_floats(self.bias),
                arrays.host_floats(self.saliency),
                self.thresholds.numpy(),
                both,
            )
        return self._native[both]

    def _masked(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield the weight as each sub-model keeps it, wide enough to compare."""
        weight = self.weight.to(dtype)
        for k, threshold in enumerate(self.thresholds.to(weight.device)):
            score = self.saliency if self.nested or self.saliency is None else self.saliency[k]
            yield scores.keep(weight, score, threshold)

    def _prepare_dense(self, backend: Backend) -> list[Tensor]:
        """Return each sub-model's weights where dense products are the faster form, else none."""
        weight, sub_models = self.weight, len(self.thresholds)
        if not choices.multiplies_on_tiles(weight.dtype, weight.device, backend):
            return []
        # Shells hold the weights of the densest sub-model, or those of each.
        listed = itertools.islice(self._masked(torch.float32), 1 if self.nested else None)
        kept = sum(int(torch.count_nonzero(masked)) for masked in listed) / weight.numel()
        if not choices.head_is_dense(len(weight), weight.shape[1], sub_models, kept):
            return []
        return [masked.to(weight.dtype) for masked in self._masked(torch.float32)]

    def _prepare_triton(self) -> LinearHead:
        from lc_engine.kernels.linear_confidence import prepare

        return prepare(self.weight, self.bias, self.thresholds, self.saliency, self.seed)

    def __call__(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        *,
        return_path: bool = False,
        checked: bool = False,
    ) -> PathScores:
        """Score one batch; see `linear_confidence` for shapes, results and errors.

        Args:
            features: of the batch.
            labels: of its rows.
            return_path: whether to return log p_k too.
            checked: whether the caller knows that labels are int64 in [0, C). Those on a GPU are
                not read back then, which would wait for all that was launched before.
        """
        _check_batch(features, labels, self.weight)
        if not checked:
            labels = checks.check_label_values(labels, self.weight.shape[0])
        features = features.detach().contiguous()
        if self._triton is not None:
            from lc_engine.kernels.linear_confidence import linear_confidence as launch

            scores = launch(features, self._triton, labels, self.path_weights, return_path)
            return PathScores(*scores)
        if self._dense and features.dtype == torch.bfloat16:
            return self._run_dense(features, labels, return_path)
        if self.backend == "native":
            return path_scores.run_native(
                self._prepare_native(features.dtype),
                features,
                labels,
                self.path_weights,
                return_path,
            )
        log_probs = self._reference(features, labels)
        return path_scores.finish(log_probs, self.path_weights, return_path)

    def _run_dense(self, features: Tensor, labels: Tensor | None, return_path: bool) -> PathScores:
        """Score in dense products of the sub-models; one tile of logits exists at a time."""
        rows = len(features)
        labels = None if labels is None else labels.to(torch.int64).contiguous()
        log_probs = np.empty((len(self._dense), rows), dtype=np.float32)
        filled = features.new_zeros((_ROWS, features.shape[1]))
        logits = features.new_empty((_ROWS, len(self.weight)))
        for first in range(0, rows, _ROWS):
            part = features[first : first + _ROWS]
            here = slice(first, first + len(part))
            if len(part) < _ROWS:
                filled[: len(part)] = part
            for k, weight in enumerate(self._dense):
                torch.mm(filled if len(part) < _ROWS else part, weight.T, out=logits)
                softmax = SoftmaxTiles(len(part))
                softmax.take_in(
                    logits[: len(part)],
                    bias=self.bias,
                    labels=None if labels is None else labels[here],
                )
                log_probs[k, here] = softmax.log_probs(labelled=labels is not None)
        return path_scores.reduced(log_probs, self.path_weights, return_path)

    def _reference(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Compute log p (K, N) in plain torch, one sub-model after the other."""
        dtype = contract.compute_dtype(features.dtype)
        x, bias = features.to(dtype), None if self.bias is None else self.bias.to(dtype)
        rows = []
        for masked in self._masked(dtype):
            logits = torch.nn.functional.linear(x, masked, bias)
            rows.append(path_scores.label_log_prob(logits, labels))
        return torch.stack(rows)


def _check_batch(features: Tensor, labels: Tensor | None, weight: Tensor) -> None:
    checks.check_tensor("weight", weight, ("C", "D"))
    checks.check_tensor("features", features, ("N", weight.shape[1]), like=weight)
    if features.dtype == torch.float64 and weight.dtype != torch.float64:
        raise ValueError(
            f"features is float64 but weight is {weight.dtype}: give both in one dtype"
        )
    checks.check_labels(labels, features.shape[0], features.device)


@torch.library.custom_op("lc_engine::linear_confidence", mutates_args=())
def _operator(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor | None,
    thresholds: Tensor,
    path_weights: Tensor | None,
    saliency: Tensor | None,
    seed: int | None,
    return_path: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    plan = LinearPlan(
        weight,
        bias,
        thresholds,
        path_weights=path_weights,
        saliency=saliency if seed is None else ("random", seed),
        backend=backend,  # type: ignore[arg-type]
    )
    return path_scores.as_op_result(plan(features, labels, return_path=return_path))


register_shapes(
    "linear_confidence",
    lambda features, thresholds, return_path: path_scores.fake_op_result(
        features, features.shape[0], thresholds.shape[0], return_path
    ),
)
