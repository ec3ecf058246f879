"""Linear classifiers on features, for the strategies and the trial that need a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_Gram = TypeVar("_Gram", bound="NDArray[Any]")

_LEARNING_RATE, _MOMENTUM, _BATCH = 0.5, 0.9, 128
_CHUNK = 16_384  # rows at a time
_OUTPUTS = 1 << 21  # rows · classes at a time
_RIDGE = 0.3  # of the mean squared norm of a centered row


def standardize(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features (N, D), centered and scaled to a mean squared row norm of 1."""
    centered = features - _mean(features)
    scale = np.sqrt(np.mean(np.square(centered).sum(1)))
    return np.asarray(centered / max(float(scale), 1e-12), dtype=np.float32)


def _mean(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean row (D,): a sum of many rows in float32 would lose digits."""
    return np.asarray(features.mean(0, dtype=np.float64), dtype=np.float32)


def train_softmax_probe(
    features: NDArray[np.float32],
    labels: NDArray[np.intp],
    classes: int,
    epochs: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.float32]]:
    """Train multinomial logistic regression by SGD from zero weights.

    Momentum 0.9, batches of 128, learning rate 0.5: one untuned setting, which suits any feature
    scale as rows are standardized.

    Args:
        features: (N, D), standardized.
        labels: (N,) in [0, classes).
        classes: C.
        epochs: passes over the rows.
        rng: order of the rows.

    Yields:
        (N, C) softmax probabilities of all rows, after each epoch.
    """
    samples, width = features.shape
    weight = np.zeros((width + 1, classes), dtype=np.float32)
    velocity = np.zeros_like(weight)
    inputs = np.concatenate([features, np.ones((samples, 1), dtype=np.float32)], 1)
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(samples), max(1, samples // _BATCH)):
            error = _softmax(inputs[batch] @ weight)
            error[np.arange(len(batch)), labels[batch]] -= 1
            velocity = _MOMENTUM * velocity - _LEARNING_RATE * (inputs[batch].T @ error) / len(
                batch
            )
            weight += velocity
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
    """Fit a ridge classifier in closed form and return its classes (M,) of queries (M, D).

    One-hot regression with an intercept. The penalty is relative to the mean squared norm of the
    centered rows, so it does not depend on the scale of the features.
    """
    mean = _mean(features)
    centered = features - mean
    targets = np.eye(classes, dtype=np.float32)[labels]
    samples, width = centered.shape
    # The targets need no centering: the rows of `centered` sum to zero.
    if samples <= width:
        weight = centered.T @ np.linalg.solve(_add_ridge(centered @ centered.T, samples), targets)
    else:
        weight = np.linalg.solve(_add_ridge(centered.T @ centered, samples), centered.T @ targets)
    return np.asarray(((queries - mean) @ weight + targets.mean(0)).argmax(1))


def leave_one_out_margins(
    features: NDArray[np.float32], labels: NDArray[np.intp], classes: int
) -> NDArray[np.float64]:
    """Return by how much a ridge classifier of the other rows prefers each row's label: (N,).

    f(x, y) − max f(x, c) over the other classes c, negative where one of them fits better. Without
    fitting N classifiers: the output of one without row i is (f(x_i) − h_i·onehot(y_i))/(1 − h_i),
    with h the diagonal of the hat matrix (Allen, "The relationship between variable selection and
    data augmentation", Technometrics 1974).

    Args:
        features: (N, D).
        labels: (N,) in [0, classes).
        classes: C ≥ 2.
    """
    samples = len(features)
    step = max(1, min(_CHUNK, _OUTPUTS // classes))
    parts = [slice(start, start + step) for start in range(0, samples, step)]
    mean = _mean(features)
    gram = np.zeros((features.shape[1], features.shape[1]))
    sums = np.zeros((features.shape[1], classes))
    for part in parts:
        centered = features[part] - mean
        gram += centered.T @ centered
        order = np.argsort(labels[part], kind="stable")
        present, first = np.unique(labels[part][order], return_index=True)
        sums[:, present] += np.add.reduceat(centered[order], first, dtype=np.float64).T
    inverse = np.linalg.inv(_add_ridge(gram, samples))
    weight, prior = inverse @ sums, np.bincount(labels, minlength=classes) / samples
    margins = np.empty(samples)
    for part in parts:
        centered, own = features[part] - mean, labels[part]
        leverage = ((centered @ inverse) * centered).sum(1) + 1 / samples
        outputs = centered @ weight + prior
        chosen = outputs[np.arange(len(own)), own] - leverage
        outputs[np.arange(len(own)), own] = -np.inf
        margins[part] = (chosen - outputs.max(1)) / (1 - leverage)
    return margins


def _add_ridge(gram: _Gram, samples: int) -> _Gram:
    """Add the ridge to a Gram matrix, in place; its trace is the sum of squared row norms."""
    gram.flat[:: len(gram) + 1] += max(_RIDGE * float(np.trace(gram)) / samples, 1e-12)
    return gram


def principal_components(
    features: NDArray[np.float32], width: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return features (N, D) projected on their first principal components: (N, ≤ width).

    The components are those of 8·width rows drawn at random. Features of D ≤ width stay as they
    are.
    """
    if features.shape[1] <= width:
        return features
    sample = features[rng.permutation(len(features))[: 8 * width]]
    mean = sample.mean(0)
    sample = sample - mean
    values, vectors = np.linalg.eigh(sample @ sample.T)
    kept = np.flatnonzero(values > 1e-6 * values[-1])[-width:]
    top = vectors[:, kept] / np.sqrt(values[kept])
    basis = sample.T @ top
    projected = np.empty((len(features), basis.shape[1]), dtype=np.float32)
    for start in range(0, len(features), _CHUNK):
        projected[start : start + _CHUNK] = (features[start : start + _CHUNK] - mean) @ basis
    return projected
