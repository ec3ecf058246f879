"""The classifier that every subset trains: closed-form ridge on features, many subsets at once.

One setting for all data sets, models, budgets and strategies, fixed on folds of training data
before any test label was read: rows centred, scaled to a mean squared length of 1, penalty 0.3.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

PENALTY = 0.3
DUAL = 2_000  # rows up to which the dual system is cheaper, as XXᵀ is precomputed


class Judge:
    """Accuracy on one test set of ridge classifiers trained on subsets of one training set."""

    def __init__(
        self, train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray
    ) -> None:
        self.classes = int(max(labels.max(), truth.max())) + 1
        self.train, self.test, self.truth = train, test, truth
        self.targets = np.eye(self.classes, dtype=np.float32)[labels]
        self.present = np.bincount(truth, minlength=self.classes)
        self.outer, self.inner = train @ train.T, train.T @ train

    def __call__(self, subsets: list[np.ndarray]) -> list[float]:
        """Mean over the classes of the test accuracy, in points, after training on each subset."""
        fits = [self._fit(subset) for subset in subsets]
        outputs = self.test @ np.concatenate([weight for weight, _ in fits], axis=1)
        return [
            self._accuracy(part + offset)
            for part, (_, offset) in zip(np.split(outputs, len(fits), axis=1), fits, strict=True)
        ]

    def _accuracy(self, outputs: np.ndarray) -> float:
        right = np.bincount(self.truth, outputs.argmax(1) == self.truth, minlength=self.classes)
        return float(100 * np.mean(right[self.present > 0] / self.present[self.present > 0]))

    def _fit(self, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = self.train[subset], self.targets[subset]
        samples, width = x.shape
        mean, prior = x.mean(0), y.mean(0)
        if samples <= max(width, DUAL):
            gram = self.outer[np.ix_(subset, subset)]
            across = gram.mean(0)
            gram = gram - across - across[:, None] + across.mean()
        else:
            gram = self._inner_of(subset) - samples * np.outer(mean, mean)
        gram.flat[:: len(gram) + 1] += PENALTY * np.trace(gram) / samples
        if len(gram) == samples:
            weight = x.T @ _centred(cho_solve(cho_factor(gram), y - prior))
        else:
            weight = cho_solve(cho_factor(gram), x.T @ (y - prior))
        return weight, prior - mean @ weight

    def _inner_of(self, subset: np.ndarray) -> np.ndarray:
        """XᵀX of a subset, from its complement if that is smaller."""
        if 2 * len(subset) <= len(self.train):
            return self.train[subset].T @ self.train[subset]
        out = self.train[np.setdiff1d(np.arange(len(self.train)), subset)]
        return self.inner - out.T @ out


def _centred(dual: np.ndarray) -> np.ndarray:
    """(X − mean)ᵀ·dual is Xᵀ·(dual − its mean)."""
    return np.asarray(dual - dual.mean(0))
