"""Linear classifiers on features: what selection uses where it needs a model of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_RATE, _MOMENTUM, _BATCH = 0.5, 0.9, 128
_RIDGE = 0.3  # of the mean squared length of a centred row


def standardise(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre features (N, D) and scale them so that the mean squared length of a row is 1."""
    centred = features - features.mean(0)
    scale = np.sqrt(np.mean(np.square(centred).sum(1)))
    return np.asarray(centred / max(float(scale), 1e-12), dtype=np.float32)


def softmax_probe(
    features: NDArray[np.float32],
    labels: NDArray[np.intp],
    classes: int,
    epochs: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.float32]]:
    """Train multinomial logistic regression by SGD and give its view of the rows as it learns.

    Momentum 0.9, batches of 128, a step of 0.5 (rows are standardised, so it suits any feature
    scale), from zero weights: one setting, never tuned.

    Args:
        features: (N, D), standardised.
        labels: (N,) in [0, classes).
        classes: C.
        epochs: passes over the rows.
        rng: order of the rows.

    Yields:
        (N, C) softmax probabilities of all rows, after each epoch.
    """
    samples, width = features.shape
    weight = np.zeros((width + 1, classes), dtype=np.float32)
    speed = np.zeros_like(weight)
    inputs = np.concatenate([features, np.ones((samples, 1), dtype=np.float32)], 1)
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(samples), max(1, samples // _BATCH)):
            error = _softmax(inputs[batch] @ weight)
            error[np.arange(len(batch)), labels[batch]] -= 1
            speed = _MOMENTUM * speed - _RATE * (inputs[batch].T @ error) / len(batch)
            weight += speed
        yield _softmax(inputs @ weight)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def ridge_predict(
    features: NDArray[np.float32],
    labels: NDArray[np.intp],
    classes: int,
    queries: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Fit a ridge classifier in closed form and predict: features (n, D) -> classes (m,).

    One-hot regression with an intercept. The penalty is a share of the mean squared length of the
    centred rows, so it does not depend on the scale of the features.
    """
    mean = features.mean(0)
    centred = features - mean
    targets = np.eye(classes, dtype=np.float32)[labels]
    samples, width = centred.shape
    # Centring the targets would change nothing: the rows of `centred` sum to zero.
    if samples <= width:
        weight = centred.T @ np.linalg.solve(_penalised(centred @ centred.T, samples), targets)
    else:
        weight = np.linalg.solve(_penalised(centred.T @ centred, samples), centred.T @ targets)
    return np.asarray((queries @ weight + (targets.mean(0) - mean @ weight)).argmax(1))


def _penalised(gram: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Add the ridge to a Gram matrix, in place; its trace is the rows' squared length."""
    gram.flat[:: len(gram) + 1] += max(_RIDGE * float(np.trace(gram)) / samples, 1e-12)
    return gram


def principal_components(
    features: NDArray[np.float32], width: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Project features (N, D) on their first principal components: (N, at most `width`).

    They are those of 8·width rows drawn at random. Features no wider than that stay as they are.
    """
    if features.shape[1] <= width:
        return features
    sample = features[rng.permutation(len(features))[: 8 * width]]
    mean = sample.mean(0)
    sample = sample - mean
    values, vectors = np.linalg.eigh(sample @ sample.T)
    kept = np.flatnonzero(values > 1e-6 * values[-1])[-width:]
    top = vectors[:, kept] / np.sqrt(values[kept])
    return np.asarray((features - mean) @ (sample.T @ top), dtype=np.float32)
