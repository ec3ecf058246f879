"""Uncertainty baselines: entropy, margin, least confidence and EL2N.

The classifier is a linear probe on the pre-trained model's features, trained on all rows. All four
keep the rows of highest uncertainty or error, as their papers do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine._util.grouped import smallest_per_group
from lc_engine.selection.linear_probe import standardize, train_softmax_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem

EPOCHS = 20  # of the probe for entropy, margin and least confidence
EL2N_EPOCHS, EL2N_RUNS = 5, 10  # as in the paper: early in training, averaged over runs


def entropy(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep the rows of largest predictive entropy (Settles, "Active Learning", 2012)."""
    return _most_uncertain(problem, rng, features, "entropy")


def margin(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep the smallest gaps between the two likeliest classes (Scheffer et al., IDA 2001)."""
    return _most_uncertain(problem, rng, features, "margin")


def least_confidence(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep the rows whose likeliest class is least likely (Lewis and Gale, SIGIR 1994)."""
    return _most_uncertain(problem, rng, features, "least_confidence")


def el2n(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep the rows of largest error early in training (see `el2n_scores`)."""
    rows, counts = problem
    return smallest_per_group(-el2n_scores(features, rows.labels(), rng), rows.groups, counts)


def _most_uncertain(
    problem: Problem, rng: np.random.Generator, features: NDArray[np.float32], measure: str
) -> NDArray[np.intp]:
    rows, counts = problem
    uncertainty = uncertainty_scores(features, rows.labels(), rng)[measure]
    return smallest_per_group(-uncertainty, rows.groups, counts)


def uncertainty_scores(
    features: NDArray[np.float32], labels: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Return a probe's uncertainty about each row: {strategy: (N,), high = uncertain}.

    Args:
        features: (N, D).
        labels: (N,) of at least two classes.
        rng: order in which the probe sees the rows.

    Raises:
        ValueError: a single class.
    """
    classes, count = _classes(labels)
    *_, probs = train_softmax_probe(standardize(features), classes, count, EPOCHS, rng)
    second, top = np.partition(probs, -2, axis=1)[:, -2:].T
    return {
        "entropy": -(probs * np.log(np.maximum(probs, 1e-30))).sum(1),
        "margin": second - top,
        "least_confidence": -top,
    }


def el2n_scores(
    features: NDArray[np.float32], labels: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return ‖p − onehot(y)‖₂ after a few epochs, averaged over ten runs: (N,), high = hard.

    Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021.

    Raises:
        ValueError: a single class.
    """
    classes, count = _classes(labels)
    inputs = standardize(features)
    norm = np.zeros(len(features))
    for _ in range(EL2N_RUNS):
        *_, probs = train_softmax_probe(inputs, classes, count, EL2N_EPOCHS, rng)
        probs[np.arange(len(classes)), classes] -= 1
        norm += np.linalg.norm(probs, axis=1) / EL2N_RUNS
    return norm


def _classes(labels: NDArray[np.int64]) -> tuple[NDArray[np.intp], int]:
    """Return the class of each row (N,) in [0, C), and C.

    Raises:
        ValueError: a single class, as where no row has a label.
    """
    names, classes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError("an uncertainty strategy needs at least two classes in column label")
    return classes, len(names)
