"""Baselines from a classifier's view of the data: entropy, margin, least confidence and EL2N.

The classifier is a linear probe on the pre-trained model's features, trained on all rows (see
`probe`). All four keep the rows the probe is least sure or most wrong about, as their papers do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection import grouped as draw
from lc_engine.selection.linear_probe import softmax_probe, standardise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.eligible import Rows

EPOCHS = 20  # of the probe whose doubts are read
EARLY_EPOCHS = 5  # of the probes that EL2N averages over …
EARLY_RUNS = 10  # … and their number, as in the paper


def entropy(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    features: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Keep the rows of largest predictive entropy (Settles, "Active Learning", 2012)."""
    return draw.first(-doubts(features, rows.labels(), rng)["entropy"], rows.groups, counts)


def margin(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    features: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Keep the smallest gaps between the two likeliest classes (Scheffer et al., IDA 2001)."""
    return draw.first(-doubts(features, rows.labels(), rng)["margin"], rows.groups, counts)


def least_confidence(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    features: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Keep the rows whose likeliest class is least likely (Lewis and Gale, SIGIR 1994)."""
    doubt = doubts(features, rows.labels(), rng)["least_confidence"]
    return draw.first(-doubt, rows.groups, counts)


def el2n(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    features: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Keep the rows of largest error early in training (see `el2n_score`)."""
    return draw.first(-el2n_score(features, rows.labels(), rng), rows.groups, counts)


def doubts(
    features: NDArray[np.float32], labels: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Give a probe's doubts about each row: {strategy: (N,), high = uncertain}.

    Args:
        features: (N, D).
        labels: (N,) of at least two classes.
        rng: order in which the probe sees the rows.

    Raises:
        ValueError: a single class.
    """
    classes, own = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("an uncertainty strategy needs at least two classes in column label")
    *_, probs = softmax_probe(standardise(features), own, len(classes), EPOCHS, rng)
    second, top = np.partition(probs, -2, axis=1)[:, -2:].T
    return {
        "entropy": -(probs * np.log(np.maximum(probs, 1e-30))).sum(1),
        "margin": second - top,
        "least_confidence": -top,
    }


def el2n_score(
    features: NDArray[np.float32], labels: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Give ‖p − onehot(y)‖₂ after a few epochs, averaged over ten runs: (N,), high = hard.

    Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021.
    """
    classes, own = np.unique(labels, return_inverse=True)
    inputs = standardise(features)
    norm = np.zeros(len(features))
    for _ in range(EARLY_RUNS):
        *_, probs = softmax_probe(inputs, own, len(classes), EARLY_EPOCHS, rng)
        probs[np.arange(len(own)), own] -= 1
        norm += np.linalg.norm(probs, axis=1) / EARLY_RUNS
    return norm
