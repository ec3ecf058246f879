"""Nodes and weights of quadrature rules for the mean over capacity."""

from __future__ import annotations

import numpy as np


def gauss_legendre(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the Gauss-Legendre rule on [0, 1]: nodes descending, weights summing to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return (nodes[::-1] + 1) / 2, weights[::-1] / 2


def clenshaw_curtis(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the Clenshaw-Curtis rule on [0, 1]: nodes descending, weights summing to 1.

    The nodes of 2^m + 1 points are among those of 2^(m+1) + 1 (C. W. Clenshaw and A. R. Curtis,
    Numerische Mathematik 2, 1960).
    """
    last = points - 1
    angles = np.pi * np.arange(points) / last
    weights = np.ones(points)
    for j in range(1, last // 2 + 1):
        share = 1.0 if 2 * j == last else 2.0
        weights -= share * np.cos(2 * j * angles) / (4 * j * j - 1)
    weights /= last
    weights[1:-1] *= 2
    return (np.cos(angles) + 1) / 2, weights / weights.sum()


def gauss_of(values: np.ndarray, weights: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the Gauss rule of a discrete mean Σ w_i f(u_i): exact for f of degree 2·points − 1.

    By the Stieltjes procedure and the eigenvalues of the Jacobi matrix (W. Gautschi, "Orthogonal
    Polynomials", 2004, sections 2.2 and 3.1).

    Args:
        values: (K,) distinct u_i.
        weights: (K,) w_i > 0, summing to 1.
        points: at most K.

    Returns:
        Nodes descending, inside the range of the values, and weights summing to 1.
    """
    middle, half = (values.max() + values.min()) / 2, np.ptp(values) / 2 or 1.0
    u = (values - middle) / half
    diagonal: list[float] = []
    beside: list[float] = []
    before, now = np.zeros_like(u), np.ones_like(u)
    norm = 1.0
    for _ in range(points):
        alpha = float((weights * u * now * now).sum() / norm)
        diagonal.append(alpha)
        beta = beside[-1] ** 2 if beside else 0.0
        before, now = now, (u - alpha) * now - beta * before
        above = float((weights * now * now).sum())
        beside.append(float(np.sqrt(above / norm)))
        norm = above
    off = beside[: points - 1]
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    order = np.argsort(-nodes)
    return nodes[order] * half + middle, vectors[0, order] ** 2
