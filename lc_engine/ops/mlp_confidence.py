"""mlp_confidence: a masked MLP head, softmax and label confidence, for all K sub-models.

    h_0 = x      h_l = act(h_{l-1} · (W_l ⊙ [s_l ≥ t_{l,k}])ᵀ + b_l)      p_k = softmax(last)[label]

with no activation after the last layer. Learning complexity Σ ω_k p_k is defined in "Exploring
Learning Complexity for Downstream Data Pruning" (arXiv 2402.05356), section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, contract, path_scores, philox
from lc_engine.ops.custom_op import register_shapes
from lc_engine.ops.path_scores import PathScores
from lc_engine.ops.saliency import split_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.kernels.mlp_confidence import MLPHead
    from lc_engine.ops.contract import Backend
    from lc_engine.ops.saliency import SaliencyList

Activation = Literal["relu", "gelu"]


def mlp_confidence(
    features: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    labels: Tensor | None,
    thresholds: Tensor | Sequence[float] | Sequence[Tensor | Sequence[float]],
    *,
    activation: Activation = "relu",
    path_weights: Tensor | Sequence[float] | None = None,
    saliency: SaliencyList = None,
    return_path: bool = False,
    backend: Backend = "auto",
) -> PathScores:
    """Score N samples under the K sub-models of an MLP head.

    Args:
        features: (N, D) float32, bfloat16 or float64 (reference only).
        weights: L tensors (H_l, H_{l-1}) of one dtype, with H_0 = D and H_L = C.
        biases: L tensors (H_l,) or None; never masked.
        labels: (N,) integers in [0, C), or None for each sub-model's largest probability.
        thresholds: (K,) ascending for all layers (global scope), or L of them (layer scope).
        activation: "relu", or "gelu" by the error function; after every layer but the last.
        path_weights: (K,) ω, by default 1/K each.
        saliency: None for |w|; L tensors like the weights; or ("random", seed) for numbers drawn
            by Philox, layer l from stream l.
        return_path: whether to return log p_k too.
        backend: "auto" takes the C++ core on a CPU, Triton on a GPU.

    Returns:
        PathScores in float32 (float64 for float64 features).

    Raises:
        ValueError: naming the argument that does not fit.
    """
    tensors, seed = split_list(saliency)
    _check_weights(weights)
    _check_batch(features, labels, weights)
    if path_weights is not None:
        path_weights = checks.as_numbers("path_weights", path_weights)
    for layer, bias in enumerate(_same_length("biases", biases, len(weights))):
        checks.check_kinds(**{f"biases[{layer}]": bias})
    lc, loss, log_probs = torch.ops.lc_engine.mlp_confidence(
        features,
        list(weights),
        _same_length("biases", biases, len(weights)),
        labels,
        _stacked(thresholds, len(weights)),
        activation,
        path_weights,
        tensors or [],
        seed,
        return_path,
        backend,
    )
    return PathScores(lc, loss, log_probs if return_path else None)


class MLPPlan:
    """An MLP head prepared once and run on any number of batches.

    The plan copies what it needs: later changes of the weights do not reach it. It can be shared
    between threads. Arguments are those of `mlp_confidence`.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        thresholds: Tensor | Sequence[float] | Sequence[Tensor | Sequence[float]],
        *,
        activation: Activation = "relu",
        path_weights: Tensor | Sequence[float] | None = None,
        saliency: SaliencyList = None,
        backend: Backend = "auto",
    ) -> None:
        _check_weights(weights)
        first = weights[0]
        for layer, (weight, bias) in enumerate(
            zip(weights, _same_length("biases", biases, len(weights)), strict=True)
        ):
            if bias is not None:
                checks.check_tensor(f"biases[{layer}]", bias, (weight.shape[0],), like=first)
        if activation not in get_args(Activation):
            raise ValueError(
                f"activation must be one of {get_args(Activation)}, got {activation!r}"
            )
        self.activation: Activation = activation
        self.backend = contract.resolve_backend(
            "mlp_confidence", backend, first.device, first.dtype
        )
        dtype = contract.compute_dtype(first.dtype)
        layers = _stacked(thresholds, len(weights))
        self.thresholds = torch.stack(
            [checks.check_thresholds(f"thresholds[{i}]", t, dtype) for i, t in enumerate(layers)]
        )
        self.path_weights = checks.check_path_weights(
            path_weights, self.thresholds.shape[1], first.device
        )
        self.weights = [
            weight.detach().clone(memory_format=torch.contiguous_format) for weight in weights
        ]
        self.biases = [None if b is None else b.detach().clone().contiguous() for b in biases]
        given, self.seed = split_list(saliency)
        self.saliency = self._given_saliency(given, dtype)
        self._native = self._prepare_native() if self.backend == "native" else None
        self._triton = self._prepare_triton() if self.backend == "triton" else None

    def _given_saliency(
        self, given: list[Tensor] | None, dtype: torch.dtype
    ) -> list[Tensor] | None:
        if self.seed is not None and self.backend != "triton":  # a kernel draws its own
            return [
                philox.uniform(tuple(w.shape), self.seed, layer, w.device).to(dtype)
                for layer, w in enumerate(self.weights)
            ]
        if given is None:
            return None
        if len(given) != len(self.weights):
            raise ValueError(f"saliency must hold {len(self.weights)} tensors, got {len(given)}")
        for layer, (score, weight) in enumerate(zip(given, self.weights, strict=True)):
            checks.check_tensor(f"saliency[{layer}]", score, tuple(weight.shape), like=weight)
        return [s.detach().to(dtype).clone(memory_format=torch.contiguous_format) for s in given]

    def _prepare_native(self) -> object:
        saliency = self.saliency
        return contract.native().MLPPlan(
            [arrays.host_floats(weight) for weight in self.weights],
            [arrays.host_floats(bias) for bias in self.biases],
            None if saliency is None else [arrays.host_floats(score) for score in saliency],
            self.thresholds.numpy(),
            self.activation,
        )

    def _prepare_triton(self) -> MLPHead:
        from lc_engine.kernels.mlp_confidence import prepare

        return prepare(
            self.weights, self.biases, self.thresholds, self.saliency, self.seed, self.activation
        )

    def __call__(
        self, features: Tensor, labels: Tensor | None = None, *, return_path: bool = False
    ) -> PathScores:
        """Score one batch; see `mlp_confidence` for shapes, results and errors."""
        _check_batch(features, labels, self.weights)
        labels = checks.check_label_values(labels, self.weights[-1].shape[0])
        features = features.detach().contiguous()
        if self._triton is not None:
            from lc_engine.kernels.mlp_confidence import mlp_confidence as launch

            scores = launch(features, self._triton, labels, self.path_weights, return_path)
            return PathScores(*scores)
        if self._native is not None:
            return path_scores.run_native(
                self._native, features, labels, self.path_weights, return_path
            )
        log_probs = self._reference(features, labels)
        return path_scores.finish(log_probs, self.path_weights, return_path)

    def _reference(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Compute log p (K, N) in plain torch, one sub-model after the other."""
        dtype = contract.compute_dtype(features.dtype)
        weights = [weight.to(dtype) for weight in self.weights]
        scores = [w.abs() for w in weights] if self.saliency is None else self.saliency
        act = torch.relu if self.activation == "relu" else torch.nn.functional.gelu
        rows = []
        for bounds in self.thresholds.to(features.device).T:
            hidden = features.to(dtype)
            for layer, (weight, bias) in enumerate(zip(weights, self.biases, strict=True)):
                hidden = torch.nn.functional.linear(
                    act(hidden) if layer else hidden,
                    torch.where(scores[layer] >= bounds[layer], weight, 0),
                    None if bias is None else bias.to(dtype),
                )
            rows.append(path_scores.label_log_prob(hidden, labels))
        return torch.stack(rows)


def _same_length(name: str, values: Sequence[Tensor | None], layers: int) -> list[Tensor | None]:
    if len(values) != layers:
        raise ValueError(f"{name} must hold {layers} entries, one per weight, got {len(values)}")
    return list(values)


def _stacked(
    thresholds: Tensor | Sequence[float] | Sequence[Tensor | Sequence[float]], layers: int
) -> list[Tensor]:
    """Return one (K,) per layer, whatever the scope.

    Raises:
        ValueError: not one (K,) tensor or L of them of one length.
    """
    if isinstance(thresholds, torch.Tensor):
        each = [thresholds] * layers if thresholds.dim() == 1 else list(thresholds)
    elif _are_numbers(thresholds):
        each = [checks.as_numbers("thresholds", thresholds)] * layers  # type: ignore[arg-type]
    else:
        each = [
            checks.as_numbers(f"thresholds[{i}]", values)  # type: ignore[arg-type]
            for i, values in enumerate(thresholds)
        ]
    if len(each) != layers:
        raise ValueError(
            f"thresholds must be (K,) or {layers} of them, one per layer, got {len(each)}"
        )
    for layer, values in enumerate(each):
        checks.check_tensor(f"thresholds[{layer}]", values, ("K",))
        if values.shape != each[0].shape:
            raise ValueError(
                f"thresholds[{layer}] has {len(values)} entries, but thresholds[0] has "
                f"{len(each[0])}: every layer needs one per sub-model"
            )
    return each


def _are_numbers(thresholds: object) -> bool:
    """Return whether thresholds are of one layer, if they are not tensors."""
    if not isinstance(thresholds, (list, tuple)):
        return True
    return len(thresholds) > 0 and not isinstance(thresholds[0], (torch.Tensor, list, tuple))


def _check_weights(weights: Sequence[Tensor]) -> None:
    if len(weights) == 0:
        raise ValueError("weights must hold at least one layer")
    width: int | str = "D"
    for layer, weight in enumerate(weights):
        checks.check_tensor(f"weights[{layer}]", weight, ("H", width), like=weights[0])
        if weight.dtype != weights[0].dtype:
            raise ValueError(
                f"weights[{layer}] is {weight.dtype} but weights[0] is {weights[0].dtype}: "
                "give all layers in one dtype"
            )
        width = weight.shape[0]
        if width < 1:
            raise ValueError(
                f"weights[{layer}] must have at least one output, got shape {tuple(weight.shape)}"
            )


def _check_batch(features: Tensor, labels: Tensor | None, weights: Sequence[Tensor]) -> None:
    first = weights[0]
    checks.check_tensor("features", features, ("N", first.shape[1]), like=first)
    if features.dtype == torch.float64 and first.dtype != torch.float64:
        raise ValueError(
            f"features is float64 but weights is {first.dtype}: give both in one dtype"
        )
    checks.check_labels(labels, features.shape[0], features.device)


# The schema as text: torch 2.6 cannot read list[Tensor] from the signature.
@torch.library.custom_op(
    "lc_engine::mlp_confidence",
    mutates_args=(),
    schema="(Tensor features, Tensor[] weights, Tensor?[] biases, Tensor? labels, "
    "Tensor[] thresholds, str activation, Tensor? path_weights, Tensor[] saliency, SymInt? seed, "
    "bool return_path, str backend) -> (Tensor, Tensor, Tensor)",
)
def _operator(
    features: Tensor,
    weights: list[Tensor],
    biases: list[Tensor | None],
    labels: Tensor | None,
    thresholds: list[Tensor],
    activation: str,
    path_weights: Tensor | None,
    saliency: list[Tensor],
    seed: int | None,
    return_path: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    plan = MLPPlan(
        weights,
        biases,
        thresholds,
        activation=activation,  # type: ignore[arg-type]
        path_weights=path_weights,
        saliency=(saliency or None) if seed is None else ("random", seed),
        backend=backend,  # type: ignore[arg-type]
    )
    return path_scores.as_op_result(plan(features, labels, return_path=return_path))


register_shapes(
    "mlp_confidence",
    lambda features, thresholds, return_path: path_scores.fake_op_result(
        features, features.shape[0], thresholds[0].shape[0], return_path
    ),
)
