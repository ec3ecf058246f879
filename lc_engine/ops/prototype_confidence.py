"""prototype_confidence: distances to class prototypes, softmax and the label's confidence.

    d_c = ‖z_k − μ_c‖₂      p_k = softmax_c(logit(d_c) / τ)[label]      lc = Σ ω_k p_k

with logit 1/d (the released vision code of arXiv 2402.05356 v2), −d² or the cosine of z_k and μ_c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, contract, path_scores
from lc_engine.ops.custom_op import register_shapes
from lc_engine.ops.path_scores import PathScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.kernels.prototype_confidence import PrototypeHead
    from lc_engine.ops.contract import Backend

Logit = Literal["inverse_distance", "neg_sq_distance", "cosine"]

# A sample that lies on a prototype has distance 0; 1/d is finite from here on.
MIN_DISTANCE = 1e-12
# |z| or |μ| below this counts as this in a cosine: the zero vector is orthogonal to all.
MIN_NORM = 1e-12
# Elements of the (rows, C, D) difference that the reference holds at a time.
_REFERENCE_CHUNK = 1 << 22


def prototype_confidence(
    features: Tensor,
    prototypes: Tensor,
    labels: Tensor | None,
    *,
    logit: Logit = "inverse_distance",
    temperature: float = 1.0,
    path_weights: Tensor | Sequence[float] | None = None,
    return_path: bool = False,
    backend: Backend = "auto",
) -> PathScores:
    """Score N samples by the distance of each sub-model's features to the class prototypes.

    Args:
        features: (K, N, D), the features that each of the K sub-models gives the N samples.
        prototypes: (C, D) class means μ of the unmasked model's features.
        labels: (N,) integers in [0, C), or None for each sub-model's largest probability.
        logit: "inverse_distance" 1/d, "neg_sq_distance" −d², or "cosine".
        temperature: τ > 0, divides the logit.
        path_weights: (K,) ω, by default 1/K each.
        return_path: whether to return log p_k too.
        backend: "auto" takes the C++ core on a CPU, Triton on a GPU.

    Returns:
        PathScores in float32 (float64 for float64 features). Differences z − μ are formed before
        they are squared, so that small distances keep their digits.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    _check_batch(features, labels, prototypes)
    if path_weights is not None:
        path_weights = checks.as_numbers("path_weights", path_weights)
    lc, loss, log_probs = torch.ops.lc_engine.prototype_confidence(
        features, prototypes, labels, logit, temperature, path_weights, return_path, backend
    )
    return PathScores(lc, loss, log_probs if return_path else None)


class PrototypePlan:
    """Class prototypes prepared once and compared with any number of batches.

    The plan copies what it needs and can be shared between threads. Arguments are those of
    `prototype_confidence`; the number of sub-models is that of each batch.
    """

    def __init__(
        self,
        prototypes: Tensor,
        *,
        logit: Logit = "inverse_distance",
        temperature: float = 1.0,
        path_weights: Tensor | Sequence[float] | None = None,
        backend: Backend = "auto",
    ) -> None:
        checks.check_tensor("prototypes", prototypes, ("C", "D"))
        if prototypes.shape[0] < 1:
            raise ValueError("prototypes must hold at least one class, got C = 0")
        if logit not in get_args(Logit):
            raise ValueError(f"logit must be one of {get_args(Logit)}, got {logit!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.logit: Logit = logit
        self.temperature = float(temperature)
        self.path_weights = path_weights
        self.backend = contract.resolve_backend(
            "prototype_confidence", backend, prototypes.device, prototypes.dtype
        )
        self.prototypes = prototypes.detach().clone(memory_format=torch.contiguous_format)
        self._native = None
        if self.backend == "native":
            self._native = contract.native().PrototypePlan(
                arrays.host_floats(self.prototypes), self.logit, self.temperature
            )
        self._triton: PrototypeHead | None = None
        if self.backend == "triton":
            from lc_engine.kernels.prototype_confidence import prepare

            self._triton = prepare(self.prototypes, self.logit, self.temperature)

    def __call__(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        *,
        return_path: bool = False,
        checked: bool = False,
    ) -> PathScores:
        """Score one batch; see `prototype_confidence` for shapes, results and errors.

        Args:
            features: of the batch.
            labels: of its rows.
            return_path: whether to return log p_k too.
            checked: whether the caller knows that labels are int64 in [0, C). Those on a GPU are
                not read back then, which would wait for all that was launched before.
        """
        _check_batch(features, labels, self.prototypes)
        if not checked:
            labels = checks.check_label_values(labels, self.prototypes.shape[0])
        path_weights = checks.check_path_weights(
            self.path_weights, features.shape[0], features.device
        )
        features = features.detach().contiguous()
        if self._triton is not None:
            from lc_engine.kernels.prototype_confidence import prototype_confidence as launch

            scores = launch(
                features,
                self._triton,
                labels,
                path_weights,
                return_path,
                min_distance=MIN_DISTANCE,
                min_norm=MIN_NORM,
            )
            return PathScores(*scores)
        if self.backend == "native":
            return path_scores.run_native(self._native, features, labels, path_weights, return_path)
        log_probs = torch.stack(
            [path_scores.label_log_prob(self.logits(one), labels) for one in features]
        )
        return path_scores.finish(log_probs, path_weights, return_path)

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (N, C) of one sub-model's features (N, D), in plain torch."""
        dtype = contract.compute_dtype(features.dtype)
        z, mu = features.to(dtype), self.prototypes.to(dtype)
        if self.logit == "cosine":
            logits = _unit(z) @ _unit(mu).T
        else:
            rows = max(1, _REFERENCE_CHUNK // max(1, mu.numel()))
            parts = [z[start : start + rows] for start in range(0, len(z), rows)] or [z]
            squared = torch.cat([(part.unsqueeze(1) - mu).square().sum(-1) for part in parts])
            if self.logit == "inverse_distance":
                logits = squared.sqrt().clamp_min(MIN_DISTANCE).reciprocal()
            else:
                logits = -squared
        return logits / self.temperature


def _unit(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.clamp_min(MIN_NORM)


def _check_batch(features: Tensor, labels: Tensor | None, prototypes: Tensor) -> None:
    checks.check_tensor("prototypes", prototypes, ("C", "D"))
    checks.check_tensor("features", features, ("K", "N", prototypes.shape[1]), like=prototypes)
    if features.dtype == torch.float64 and prototypes.dtype != torch.float64:
        raise ValueError(
            f"features is float64 but prototypes is {prototypes.dtype}: give both in one dtype"
        )
    checks.check_labels(labels, features.shape[1], features.device)


@torch.library.custom_op("lc_engine::prototype_confidence", mutates_args=())
def _operator(
    features: Tensor,
    prototypes: Tensor,
    labels: Tensor | None,
    logit: str,
    temperature: float,
    path_weights: Tensor | None,
    return_path: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    plan = PrototypePlan(
        prototypes,
        logit=logit,  # type: ignore[arg-type]
        temperature=temperature,
        path_weights=path_weights,
        backend=backend,  # type: ignore[arg-type]
    )
    return path_scores.as_op_result(plan(features, labels, return_path=return_path))


register_shapes(
    "prototype_confidence",
    lambda features, return_path: path_scores.fake_op_result(
        features, features.shape[1], features.shape[0], return_path
    ),
)
