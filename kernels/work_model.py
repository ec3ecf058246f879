"""Roofline model of a launch: operations and bytes by its shape, and the least time they take.

Operations are counted over whole tiles, padding included. The time is that of the slowest unit of
the device at its datasheet rate, as if all units overlapped: a lower bound, not a forecast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lc_engine.kernels import config
from lc_engine.kernels.targets import TARGETS, Target

if TYPE_CHECKING:
    from lc_engine.kernels.tiles import Tile

# Element-wise operations: per logit bias, maximum, subtraction, scaling for exp2, sum and three for
# the label; per weight and sub-model a comparison and a selection; per pair of features a
# subtraction and a multiply-add; per Philox number ten rounds of about eight.
LOGIT_OPS = 8
MASK_OPS = 2
DISTANCE_OPS = 2
PHILOX_OPS = 80


@dataclass(frozen=True)
class Device:
    """Datasheet rates of one accelerator, dense, per second.

    Attributes:
        arch: key of `TARGETS`.
        half: matrix FLOP in bfloat16 or float16.
        single: matrix FLOP in TF32 (NVIDIA) or float32 (AMD).
        vector: float32 operations outside the matrix units; a multiply-add is one.
        exponentials: exp2 of the special function units.
        bandwidth: bytes to and from memory.
    """

    arch: str
    half: float
    single: float
    vector: float
    exponentials: float
    bandwidth: float

    @property
    def target(self) -> Target:
        """The target that `config` takes."""
        return TARGETS[self.arch]


# exp2 per clock: 16 per SM on NVIDIA; on AMD 1/4 of the 64 lanes of a compute unit.
DEVICES = {
    "A100": Device("sm_80", 312e12, 156e12, 9.75e12, 108 * 16 * 1.41e9, 2.04e12),
    "H100": Device("sm_90", 989e12, 494e12, 33.5e12, 132 * 16 * 1.83e9, 3.35e12),
    "B200": Device("sm_100", 2250e12, 1125e12, 37.5e12, 148 * 16 * 1.85e9, 8.0e12),
    "RTX 5090": Device("sm_120", 209.5e12, 104.8e12, 52.4e12, 170 * 16 * 2.41e9, 1.79e12),
    "MI300X": Device("gfx942", 1307e12, 163e12, 81.7e12, 304 * 16 * 2.1e9, 5.3e12),
    "MI355X": Device("gfx950", 2516e12, 157e12, 78.6e12, 256 * 16 * 2.4e9, 8.0e12),
}


def sheet_of(target: Target) -> tuple[str, Device]:
    """Return the name and the rates of the accelerator of a target's family."""
    return next(pair for pair in DEVICES.items() if pair[1].arch == target.arch)


@dataclass(frozen=True)
class Work:
    """Operations and bytes of one launch.

    Attributes:
        flops: floating-point operations of matrix products; a multiply-add is two.
        vector_ops: element-wise float32 operations outside the matrix units.
        exponentials: exponentials and logarithms.
        bytes: read from and written to memory, every tensor once, as if caches held the rest.
    """

    flops: int
    vector_ops: int
    exponentials: int
    bytes: int


@dataclass(frozen=True)
class Estimate:
    """The least time of a launch in seconds, and the unit of the device that bounds it."""

    seconds: float
    bound: str


def _up(size: int, block: int) -> int:
    """Return `size` rounded up to whole blocks."""
    return -(-size // block) * block


def _softmax(rows: int, classes: int, sub_models: int, block: int) -> tuple[int, int]:
    """Return (vector operations, exponentials) of the online softmax over padded sizes."""
    logits = rows * classes * sub_models
    tiles = classes // block
    # A rescaling per tile, an exponential and a logarithm at the end.
    return LOGIT_OPS * logits, logits + rows * sub_models * (tiles + 2)


def linear(
    samples: int,
    depth: int,
    classes: int,
    sub_models: int,
    itemsize: int,
    tile: Tile,
    *,
    premasked: bool,
    random: bool = False,
    return_path: bool = False,
) -> Work:
    """Return the work of one launch of `linear_confidence`."""
    rows, c = _up(samples, tile.rows), _up(classes, tile.classes)
    k = _up(sub_models, tile.sub_models)
    vector, exponentials = _softmax(rows, c, k, tile.classes)
    head = classes * depth * itemsize
    if premasked:
        head *= k
    else:
        blocks = rows // tile.rows
        vector += blocks * c * _up(depth, tile.depth) * k * MASK_OPS
        if random:
            vector += blocks * c * _up(depth, tile.depth) * (k // tile.sub_models) * PHILOX_OPS
    return Work(
        2 * rows * c * k * _up(depth, tile.depth),
        vector,
        exponentials,
        samples * depth * itemsize + head + _scores(samples, sub_models, return_path),
    )


def prototype(
    samples: int,
    depth: int,
    classes: int,
    sub_models: int,
    itemsize: int,
    tile: Tile,
    *,
    cosine: bool,
    return_path: bool = False,
) -> Work:
    """Return the work of one launch of `prototype_confidence`."""
    rows, c, d = _up(samples, tile.rows), _up(classes, tile.classes), _up(depth, tile.depth)
    vector, exponentials = _softmax(rows, c, sub_models, tile.classes)
    pairs = rows * c * sub_models * d
    if cosine:
        vector += rows * d * sub_models
    else:
        vector += DISTANCE_OPS * pairs
        exponentials += rows * c * sub_models  # square roots
    return Work(
        2 * pairs if cosine else 0,
        vector,
        exponentials,
        (sub_models * samples + classes) * depth * itemsize
        + _scores(samples, sub_models, return_path),
    )


def mlp(
    samples: int,
    depth: int,
    width: int,
    classes: int,
    sub_models: int,
    itemsize: int,
    tile: Tile,
    *,
    return_path: bool = False,
) -> Work:
    """Return the work of one launch of `mlp_confidence` with a hidden layer on the chip."""
    rows, c, d = _up(samples, tile.rows), _up(classes, tile.classes), _up(depth, tile.depth)
    hidden = config.hidden_block(width)
    vector, exponentials = _softmax(rows, c, sub_models, tile.classes)
    weights = hidden * (d + c)
    vector += sub_models * (rows * hidden * 2 + rows // tile.rows * weights * MASK_OPS)
    return Work(
        2 * rows * weights * sub_models,
        vector,
        exponentials,
        (samples * depth + width * (depth + classes)) * itemsize
        + _scores(samples, sub_models, return_path),
    )


def masked_linear(
    samples: int, depth: int, width: int, sub_models: int, itemsize: int, tile: Tile
) -> Work:
    """Return the work of one launch of `masked_linear`: an input per sub-model, no activation."""
    rows, e, d = _up(samples, tile.rows), _up(width, tile.classes), _up(depth, tile.depth)
    masks = rows // tile.rows * e * d * MASK_OPS
    return Work(
        2 * rows * e * d * sub_models,
        sub_models * (masks + rows * e),
        0,
        (sub_models * samples * (depth + width) + width * depth) * itemsize,
    )


def token_nll(
    tokens: int, depth: int, vocabulary: int, sub_models: int, itemsize: int, tile: Tile
) -> Work:
    """Return the work of one launch of `token_nll` with a whole head and no entropy."""
    rows, v, d = _up(tokens, tile.rows), _up(vocabulary, tile.classes), _up(depth, tile.depth)
    vector, exponentials = _softmax(rows, v, sub_models, tile.classes)
    return Work(
        2 * rows * v * d * sub_models,
        vector,
        exponentials,
        (sub_models * tokens + vocabulary) * depth * itemsize
        + 8 * tokens
        + 4 * tokens * sub_models,
    )


def apply_thresholds(weights: int, itemsize: int, source: str = "magnitude") -> Work:
    """Return the work of one launch of `apply_thresholds` over all `weights` of a model."""
    given = 4 * weights if source == "given" else 0
    ops = MASK_OPS + (PHILOX_OPS if source == "random" else 1)
    return Work(0, ops * weights, 0, 2 * weights * itemsize + given)


def _scores(samples: int, sub_models: int, return_path: bool) -> int:
    """Return the bytes of the int64 labels, lc and loss, and of the path if it is returned."""
    return 16 * samples + (4 * samples * sub_models if return_path else 0)


def estimate(work: Work, device: Device, itemsize: int) -> Estimate:
    """Return the least time that a device needs for `work`, and its bound.

    float32 products are three TF32 products on NVIDIA, exact ones on AMD.
    """
    if itemsize == 2:
        matrix = work.flops / device.half
    else:
        matrix = work.flops * (1 if device.target.amd else 3) / device.single
    times = {
        "matrix": matrix,
        "vector": work.vector_ops / device.vector,
        "exponentials": work.exponentials / device.exponentials,
        "memory": work.bytes / device.bandwidth,
    }
    bound = max(times, key=lambda name: times[name])
    return Estimate(times[bound], bound)
