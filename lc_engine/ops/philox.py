"""Counter-based uniform numbers: the saliency of random masks, drawn by index and never stored.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Word 0 of
the block with key = seed and counter = (index, stream) gives 24 random bits, so a weight draws
the same number in the reference, in C++ and in a Triton kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ROUNDS = 10
# Numbers drawn at a time: their words stay in cache.
_CHUNK = 1 << 13


def uniform(
    shape: tuple[int, ...],
    seed: int,
    stream: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw the saliency of a randomly masked tensor.

    Args:
        shape: shape of the tensor; element i, counted in row-major order, draws number i.
        seed: the 64-bit key.
        stream: which tensor of a model this is, so that two tensors never share their numbers.
        device: where the result goes; it is computed on the host.

    Returns:
        float32 tensor of `shape`, uniform on [0, 1) in steps of 2**-24.
    """
    index = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64)
    return torch.from_numpy(at(index, seed, stream).reshape(shape)).to(device)


def at(index: np.ndarray, seed: int, stream: int = 0) -> np.ndarray:
    """Return the numbers of some elements of a tensor, as `uniform` draws them.

    Args:
        index: (N,) uint64 row-major indices.
        seed: the 64-bit key.
        stream: which tensor of a model this is.

    Returns:
        (N,) float32.
    """
    found = np.empty(len(index), dtype=np.float32)
    for start in range(0, len(index), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = _drawn(index[part], seed, stream)
    return found


def _drawn(index: np.ndarray, seed: int, stream: int) -> np.ndarray:
    c0, c1 = index & _LOW, index >> _32
    c2 = np.full_like(index, stream & 0xFFFFFFFF)
    c3 = np.zeros_like(index)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _32) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _32) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return (c0 >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
