"""linear_confidence: masked linear head, softmax and label confidence, for all K sub-models.

    logits_k = x · (W ⊙ [s ≥ t_k])ᵀ + b        p_k = softmax(logits_k)[label]        lc = Σ ω_k p_k

Learning complexity is defined in "Exploring Learning Complexity for Downstream Data Pruning"
(arXiv 2402.05356), section 3; masks on a head's own weights are its linear case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, contract, path_scores, philox
from lc_engine.ops import saliency as scores
from lc_engine.ops.custom_op import register_shapes
from lc_engine.ops.path_scores import PathScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.kernels.linear_confidence import LinearHead
    from lc_engine.ops.contract import Backend
    from lc_engine.ops.saliency import Saliency


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
        backend: "auto" takes the C++ core on a CPU, Triton on a GPU.

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
        if self.backend == "native":
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

    def _prepare_triton(self) -> LinearHead:
        from lc_engine.kernels.linear_confidence import prepare

        return prepare(self.weight, self.bias, self.thresholds, self.saliency, self.seed)

    def __call__(
        self, features: Tensor, labels: Tensor | None = None, *, return_path: bool = False
    ) -> PathScores:
        """Score one batch; see `linear_confidence` for shapes, results and errors."""
        _check_batch(features, labels, self.weight)
        labels = checks.check_label_values(labels, self.weight.shape[0])
        features = features.detach().contiguous()
        if self._triton is not None:
            from lc_engine.kernels.linear_confidence import linear_confidence as launch

            scores = launch(features, self._triton, labels, self.path_weights, return_path)
            return PathScores(*scores)
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

    def _reference(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Compute log p (K, N) in plain torch, one sub-model after the other."""
        dtype = contract.compute_dtype(features.dtype)
        x, weight = features.to(dtype), self.weight.to(dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        saliency = weight.abs() if self.saliency is None else self.saliency
        rows = []
        for k, threshold in enumerate(self.thresholds.to(x.device)):
            kept = (saliency if saliency.dim() == 2 else saliency[k]) >= threshold
            logits = torch.nn.functional.linear(x, torch.where(kept, weight, 0), bias)
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
