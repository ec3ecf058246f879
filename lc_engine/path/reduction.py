"""The reduction over a path: from log p of every sub-model to lc, loss and lc_std of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


class PathColumns(NamedTuple):
    """Scores (N,) of N rows, float64.

    Attributes:
        lc: Σ ω_k p_k.
        loss: −Σ ω_k log p_k.
        lc_std: √(Σ ω_k p_k² − lc²), the standard deviation of p over the path.
    """

    lc: NDArray[np.float64]
    loss: NDArray[np.float64]
    lc_std: NDArray[np.float64]


def reduce_path(log_probs: NDArray[np.floating], weights: Sequence[float]) -> PathColumns:
    """Return lc, loss and lc_std; NaN for a row that has a NaN.

    Args:
        log_probs: (K, N); p is computed in its dtype, sums are float64.
        weights: K numbers ω_k ≥ 0. A sub-model of weight 0 is left out, even where p is 0.
    """
    loss = np.zeros(log_probs.shape[1])
    for omega, logs in _counted(log_probs, weights):
        loss -= np.multiply(logs, omega, dtype=np.float64)
    mean, square = _moments(log_probs, weights)
    return PathColumns(mean, loss, _std(mean, square))


def path_std(log_probs: NDArray[np.floating], weights: Sequence[float]) -> NDArray[np.float64]:
    """Return lc_std alone, for rows whose lc and loss an operator computed; see `reduce_path`."""
    return _std(*_moments(log_probs, weights))


# A density may be too large for p: lc is ∞ then, which the caller names.
@np.errstate(over="ignore")
def _moments(
    log_probs: NDArray[np.floating], weights: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Σ ω_k p_k and Σ ω_k p_k².

    One sub-model after the other, so that it stays in the cache and a row's sums do not depend on
    how many rows there are. In NumPy: torch's threads would spin beside those of the C++ core.
    """
    mean, square = np.zeros((2, log_probs.shape[1]))
    for omega, logs in _counted(log_probs, weights):
        p = np.exp(logs)
        share = np.multiply(p, omega, dtype=np.float64)
        mean += share
        square += np.multiply(share, p, out=share)
    return mean, square


def _counted(
    log_probs: NDArray[np.floating], weights: Sequence[float]
) -> Iterator[tuple[float, NDArray[np.floating]]]:
    # 0 · ∞ must not appear where a sub-model has no weight in the sum.
    return (pair for pair in zip(weights, log_probs, strict=True) if pair[0] != 0)


@np.errstate(invalid="ignore")
def _std(mean: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
    variance: NDArray[np.float64] = np.maximum(square - mean * mean, 0.0)
    return np.sqrt(variance)
