"""Naive loops for learning complexity: the baselines of every benchmark.

Plain torch in float32: a forward per sub-model, masks made by comparing and copying, nothing shared
between sub-models. Two loops for class prototypes, two for a linear head, one for what a whole
model returns:

    prototype_loop      reads and decodes the data once, then runs one masked model after the other
    released_way        follows the code released with arXiv 2402.05356 v2 (`score-wot.py`): reads
                        and decodes the data anew for every sub-model, which `torch.nn.utils.prune`
                        derives from the one before
    linear_loop         masks a linear head K times and multiplies K times
    released_linear     a linear head in the order of work of the released code
    masked_outputs      a loss, votes or no labels: log p of the outputs of K masked models

All mask by global magnitude. They take the same inputs and give the same numbers as the engine.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import prune

from lc_engine.models.classifier import find_classifier
from lc_engine.ops import path_scores
from lc_engine.ops.prototype_confidence import MIN_DISTANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lc_engine.ops import PathScores
    from lc_engine.path.learning_path import LearningPath

    # Reads and decodes the data set from its start: batches of (inputs, labels).
    Read = Callable[[], Iterable[tuple[Tensor, Tensor]]]
    # (N, D) features and (C, D) prototypes -> (N, C) logits.
    Similarity = Callable[[Tensor, Tensor], Tensor]
    # Batches of (inputs, labels) -> features (N, D) of the masked model as it is then.
    Features = Callable[[Iterable[tuple[Tensor, Tensor]]], Tensor]
    # (N, D) features, (C, D) weight, its threshold, (C,) bias, (N,) labels -> log p (N,).
    LogProb = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor], Tensor]


def inverse_distance(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return 1 / ‖z − μ‖₂ (N, C), the logit of the released code, from exact differences."""
    distances = torch.cdist(features, prototypes, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.clamp_min(MIN_DISTANCE).reciprocal()


def cosine(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return the cosine similarities (N, C)."""
    return F.normalize(features) @ F.normalize(prototypes).T


def feature_extractor(model: nn.Module) -> nn.Module:
    """Return a copy of a model without its classifier, in evaluation mode, with features (N, D).

    Raises:
        ValueError: the model is only a classifier.
    """
    copied = copy.deepcopy(model).eval()
    name = find_classifier(copied)
    if name == "":
        raise ValueError("model is only a classifier: use linear_loop")
    if name is not None:
        copied.set_submodule(name, nn.Identity())
    return copied


def prototype_loop(
    extractor: nn.Module,
    read: Read,
    path: LearningPath,
    similarity: Similarity = inverse_distance,
    temperature: float = 1.0,
) -> PathScores:
    """Score by K + 1 passes of masked models over data that are decoded once and kept.

    Args:
        extractor: see `feature_extractor`; all its convolution and linear weights are masked, in
            a copy.
        read: called once.
        path: the capacities.
        similarity: the logits before the temperature.
        temperature: divides them.

    Returns:
        PathScores with log_probs.
    """
    extractor = copy.deepcopy(extractor).eval()

    def features(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        return _features(extractor, batches)

    return masked_passes(extractor, features, read, path, similarity, temperature)


def masked_passes(
    extractor: nn.Module,
    features: Features,
    read: Read,
    path: LearningPath,
    similarity: Similarity = inverse_distance,
    temperature: float = 1.0,
) -> PathScores:
    """Score as `prototype_loop` does, in the module itself; its weights are restored at the end.

    Args:
        extractor: its weights are masked in place.
        features: runs it, or a compiled or rounded version of it.
        read: called once.
        path: the capacities.
        similarity: the logits before the temperature.
        temperature: divides them.
    """
    batches = list(read())
    labels = torch.cat([targets for _, targets in batches])
    prototypes = _Prototypes(features(batches), labels, similarity, temperature)
    weights = [module.weight.detach() for module in _maskable(extractor)]
    return _mean_over(
        path, [prototypes.log_prob(features(batches)) for _ in _masked_in_turn(weights, path)]
    )


def masked_outputs(
    model: nn.Module, log_prob: Callable[[], Tensor], path: LearningPath
) -> PathScores:
    """Score by K passes of masked models and the log p of what they return.

    Args:
        model: all its convolutions and linear layers but the classifier are masked in place; its
            weights are restored at the end.
        log_prob: returns log p (N,) under the model as it is then.
        path: the capacities.

    Returns:
        PathScores with log_probs.
    """
    own = find_classifier(model)
    classifier = None if own is None else model.get_submodule(own)
    weights = [part.weight.detach() for part in _maskable(model) if part is not classifier]
    return _mean_over(path, [log_prob() for _ in _masked_in_turn(weights, path)])


def released_way(
    extractor: nn.Module,
    read: Read,
    path: LearningPath,
    similarity: Similarity = inverse_distance,
    temperature: float = 1.0,
) -> PathScores:
    """Score in the order of work of the released code; see `prototype_loop` for the arguments.

    `read` is called for the labels, for the prototypes and for every sub-model. Sub-model 0 takes
    the features of the prototypes where it keeps all weights, as theirs does. Left out, in its
    favour: the pass that it makes after the last sub-model and does not use.
    """
    extractor = copy.deepcopy(extractor).eval()
    parameters = [(module, "weight") for module in _maskable(extractor)]
    left = sum(module.weight.numel() for module, _ in parameters)
    labels = torch.cat([targets for _, targets in read()])
    features = _features(extractor, read())
    prototypes = _Prototypes(features, labels, similarity, temperature)
    log_probs = []
    for count in path.keep_counts(left):
        if count < left:
            prune.global_unstructured(
                parameters, pruning_method=prune.L1Unstructured, amount=left - count
            )
            left = count
            features = _features(extractor, read())
        log_probs.append(prototypes.log_prob(features))
    return _mean_over(path, log_probs)


def masked_log_prob(
    features: Tensor, weight: Tensor, threshold: Tensor, bias: Tensor | None, labels: Tensor
) -> Tensor:
    """Return log p (N,) of one sub-model of a linear head: mask, multiply, log-softmax."""
    masked = torch.where(weight.abs() >= threshold, weight, 0)
    return -F.cross_entropy(F.linear(features, masked, bias), labels, reduction="none")


def linear_loop(
    features: Tensor,
    labels: Tensor,
    head: nn.Linear,
    path: LearningPath,
    log_prob: LogProb = masked_log_prob,
) -> PathScores:
    """Score by masking and applying a linear head once per sub-model.

    Args:
        features: (N, D).
        labels: (N,) integers.
        head: its weight is masked, in a copy; its bias is not.
        path: the capacities.
        log_prob: `masked_log_prob`, or the same made faster.

    Returns:
        PathScores with log_probs.
    """
    weight, bias = head.weight.detach(), None if head.bias is None else head.bias.detach()
    ordered = weight.abs().flatten().sort().values
    log_probs = []
    with torch.no_grad():
        for count in path.keep_counts(len(ordered)):
            threshold = ordered[len(ordered) - count] if count else torch.tensor(torch.inf)
            log_probs.append(log_prob(features, weight, threshold, bias, labels))
    return _mean_over(path, log_probs)


def released_linear(read: Read, head: nn.Linear, path: LearningPath) -> PathScores:
    """Score a linear head in the order of work of the released code; see `released_way`.

    Args:
        read: called for every sub-model.
        head: its weight is masked, in a copy; its bias is not.
        path: the capacities.
    """
    head = copy.deepcopy(head)
    left = head.weight.numel()
    log_probs = []
    for count in path.keep_counts(left):
        if count < left:
            prune.l1_unstructured(  # type: ignore[no-untyped-call]
                head, "weight", amount=left - count
            )
            left = count
        with torch.no_grad():
            found = [-F.cross_entropy(head(x), y, reduction="none") for x, y in read()]
        log_probs.append(torch.cat(found))
    return _mean_over(path, log_probs)


def _masked_in_turn(weights: list[Tensor], path: LearningPath) -> Iterator[None]:
    """Mask weights in place by global magnitude, one sub-model after the other; restore them."""
    pristine = [weight.clone() for weight in weights]
    ordered = torch.cat([weight.abs().flatten() for weight in pristine]).sort().values
    for count in path.keep_counts(len(ordered)):
        threshold = ordered[len(ordered) - count] if count else torch.inf
        for weight, whole in zip(weights, pristine, strict=True):
            weight.copy_(torch.where(whole.abs() >= threshold, whole, 0))
        yield
    for weight, whole in zip(weights, pristine, strict=True):
        weight.copy_(whole)


def _maskable(extractor: nn.Module) -> list[nn.Linear | _ConvNd]:
    return [module for module in extractor.modules() if isinstance(module, nn.Linear | _ConvNd)]


def _features(extractor: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    with torch.no_grad():
        # Copies: a forward may write to what it is given.
        return torch.cat([extractor(inputs.clone()) for inputs, _ in batches])


class _Prototypes:
    """The class means of the unmasked model's features (N, D), and the labels (N,)."""

    def __init__(
        self, full: Tensor, labels: Tensor, similarity: Similarity, temperature: float
    ) -> None:
        classes, self.own = torch.unique(labels, return_inverse=True)
        self.prototypes = torch.stack([full[labels == one].mean(0) for one in classes])
        self.similarity = similarity
        self.temperature = temperature

    def log_prob(self, features: Tensor) -> Tensor:
        """Return log p (N,) of one sub-model, from its features (N, D)."""
        logits = self.similarity(features, self.prototypes) / self.temperature
        return -F.cross_entropy(logits, self.own, reduction="none")


def _mean_over(path: LearningPath, log_probs: list[Tensor]) -> PathScores:
    stacked = torch.stack(log_probs)
    omega = torch.tensor(path.weights, device=stacked.device)
    return path_scores.finish(stacked, omega, return_path=True)
