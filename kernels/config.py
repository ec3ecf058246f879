"""Which kernel runs with which tile: plain functions of shape, dtype and target, no autotuning.

So the first call is as fast as the second, a result never depends on what a tuner measured that
day, and every configuration that can run can be compiled and checked ahead of time (`aot`). The
numbers come from compiling for each target: the widest tile that spills no register; those of sm_90
are the fastest of such on an H200. A tile does not depend on the number of rows, so a row's score
does not depend on its batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from lc_engine.kernels.interpreter import interpreting

if TYPE_CHECKING:
    from torch import Tensor

KIB = 1024
# The K masked copies of a head may take this share of a device's memory; thresholds of larger ones
# are applied in the tile, which takes twice as long.
PREMASK_SHARE = 1 / 16
# Hidden activations (K, rows, width) that a split MLP keeps in memory at a time.
HIDDEN_BYTES = 1 << 28


@dataclass(frozen=True)
class Target:
    """A family of devices that shares its tiles.

    Attributes:
        arch: "sm_80", "sm_90", "sm_100" or "gfx942".
        units: streaming multiprocessors or compute units of the device.
        shared_bytes: what one program may take of shared memory.
        warp_size: threads of a warp or wavefront.
        memory_bytes: of the device.
    """

    arch: str
    units: int
    shared_bytes: int
    warp_size: int = 32
    memory_bytes: int = 16 << 30

    @property
    def amd(self) -> bool:
        """Whether the target is compiled by Triton's HIP backend."""
        return self.arch.startswith("gfx")


TARGETS = {
    "sm_80": Target("sm_80", units=108, shared_bytes=163 * KIB),
    "sm_90": Target("sm_90", units=132, shared_bytes=227 * KIB),
    "sm_100": Target("sm_100", units=148, shared_bytes=227 * KIB),
    "gfx942": Target("gfx942", units=304, shared_bytes=64 * KIB, warp_size=64),
}


@dataclass(frozen=True)
class Tile:
    """The block sizes of one launch.

    Attributes:
        rows: samples that a program owns.
        classes: classes of one tile of the product.
        sub_models: sub-models that lie side by side in its columns.
        depth: features per step of the product.
        warps: warps (wavefronts) of a program.
        stages: steps whose loads are in flight.
    """

    rows: int
    classes: int
    sub_models: int
    depth: int
    warps: int
    stages: int


@functools.cache
def target_of(device: torch.device) -> Target:
    """Return the target of a device; on the host, in Triton's interpreter, that of an H100.

    Raises:
        ValueError: an NVIDIA device older than Ampere.
    """
    if device.type != "cuda":
        return Target("sm_90", units=1, shared_bytes=227 * KIB)
    properties = torch.cuda.get_device_properties(device)
    units = properties.multi_processor_count
    if torch.version.hip:
        known = TARGETS["gfx942"]
    elif properties.major < 8:
        raise ValueError(
            f"{properties.name} has compute capability {properties.major}.{properties.minor}; the "
            'Triton kernels need 8.0 or more: pass backend="reference"'
        )
    else:
        # Consumer Blackwell (12.x) has neither tcgen05 nor its shared memory: Ampere's tiles fit.
        known = TARGETS[{9: "sm_90", 10: "sm_100"}.get(properties.major, "sm_80")]
    memory = properties.total_memory
    return Target(known.arch, units, known.shared_bytes, known.warp_size, memory)


def precision(target: Target, compute: torch.dtype) -> str:
    """Return how a float32 product is formed.

    NVIDIA: three TF32 products. Each operand is split in two parts of 11 significant bits, and only
    the product of the two small parts (2⁻²² of the whole) is left out, so the result is as good as
    float32 accumulation allows while the tensor cores do the work. AMD multiplies float32 exactly.
    """
    return "tf32x3" if compute == torch.float32 and not target.amd else "ieee"


def compute_dtype(a: Tensor, b: Tensor) -> torch.dtype:
    """Return the dtype of the operands of a product of `a` and `b`.

    Two dtypes meet in float32, which holds both exactly. So does everything in the interpreter,
    whose bfloat16 arithmetic works on the raw bits.
    """
    return a.dtype if a.dtype == b.dtype and not interpreting() else torch.float32


# Columns of a product tile (classes x sub-models) for eight and for two sub-models side by side:
# where weights alone are loaded, then where saliencies are too, or drawn. Depth where they are
# masked in the tile, warps, stages.
_LINEAR: dict[tuple[str, int], tuple[tuple[int, int], tuple[int, int], int, int, int]] = {
    ("sm_80", 2): ((128, 64), (64, 64), 64, 8, 3),
    ("sm_80", 4): ((64, 64), (64, 32), 16, 8, 3),
    ("sm_90", 2): ((256, 128), (128, 128), 64, 8, 3),
    ("sm_90", 4): ((128, 128), (128, 128), 16, 8, 3),
    ("sm_100", 2): ((128, 128), (128, 128), 64, 8, 3),
    ("sm_100", 4): ((128, 128), (128, 128), 16, 8, 3),
    ("gfx942", 2): ((128, 128), (128, 64), 64, 8, 2),
    ("gfx942", 4): ((128, 128), (128, 128), 32, 8, 2),
}


# Depth where weights come masked and no registers are needed for that; elsewhere that of `_LINEAR`.
_PREMASKED_DEPTH = {("sm_90", 4): 32}


def together(sub_models: int) -> int:
    """Return how many sub-models lie side by side in a tile of `linear_confidence`.

    Eight are one column group of every matrix instruction, so a thread holds the softmax state of
    its own sub-models alone and sums over classes without a shuffle.
    """
    return 2 if sub_models <= 2 else 8


def linear(
    target: Target,
    itemsize: int,
    classes: int,
    sub_models: int,
    *,
    premasked: bool = False,
    scored: bool = False,
) -> Tile:
    """Return the tile of `linear_confidence`.

    Args:
        target: the device.
        itemsize: bytes of a weight.
        classes: C.
        sub_models: K.
        premasked: whether weights come masked.
        scored: whether saliencies are loaded or drawn in the tile, beside the weights.
    """
    alone, beside, depth, warps, stages = _LINEAR[target.arch, itemsize]
    width = together(sub_models)
    columns = (beside if scored else alone)[0 if width == 8 else 1]
    if classes <= 16 and width == 8:
        columns = min(columns, 128)
    if premasked:
        depth = _PREMASKED_DEPTH.get((target.arch, itemsize), depth)
    return Tile(128, columns // width, width, depth, warps, stages)


# A plain product with a softmax behind it: rows, classes, depth, warps and stages.
_PRODUCT: dict[tuple[str, int], tuple[int, int, int, int, int]] = {
    ("sm_80", 2): (128, 64, 64, 8, 3),
    ("sm_80", 4): (128, 64, 16, 8, 3),
    ("sm_90", 2): (128, 128, 64, 8, 3),
    ("sm_90", 4): (128, 128, 32, 8, 3),
    ("sm_100", 2): (128, 128, 64, 8, 3),
    ("sm_100", 4): (128, 128, 16, 8, 3),
    ("gfx942", 2): (128, 128, 64, 8, 2),
    ("gfx942", 4): (128, 128, 32, 8, 2),
}


def product(target: Target, itemsize: int, *, scored: bool = False) -> Tile:
    """Return the tile of one sub-model's product: the cosine, a layer of an MLP.

    Saliencies loaded or drawn beside the weights (`scored`) take the registers of half the columns.
    """
    rows, classes, depth, warps, stages = _PRODUCT[target.arch, itemsize]
    return Tile(rows, classes // 2 if scored else classes, 1, depth, warps, stages)


# Where saliencies in the tile and a running entropy together leave registers for half the words.
_NARROW_VOCABULARY = {("sm_80", 2), ("sm_80", 4), ("sm_100", 2)}
# Where neither of them leaves registers for twice the words.
_WIDE_VOCABULARY = {("sm_90", 2)}


def vocabulary(target: Target, itemsize: int, *, scored: bool, entropy: bool) -> Tile:
    """Return the tile of `token_nll`, whose classes are words."""
    tile = product(target, itemsize, scored=scored)
    if scored and entropy and (target.arch, itemsize) in _NARROW_VOCABULARY:
        return replace(tile, classes=tile.classes // 2)
    if not (scored or entropy) and (target.arch, itemsize) in _WIDE_VOCABULARY:
        return replace(tile, classes=2 * tile.classes)
    return tile


def prototype(target: Target, itemsize: int, cosine: bool) -> Tile:
    """Return the tile of `prototype_confidence`.

    The distances keep rows x classes x depth sums in registers, so their tile is small.
    """
    if cosine:
        return product(target, itemsize)
    if target.arch == "sm_90":
        rows, classes = (16, 32) if itemsize == 4 else (32, 16)
        return Tile(rows, classes, 1, 32, warps=4, stages=1)
    classes, depth = (32, 16) if itemsize == 4 else (16, 32)
    return Tile(32, classes, 1, depth, warps=8, stages=1)


# Widest hidden layer that stays on the chip: with ReLU and |w|; with GELU, or saliencies loaded or
# drawn beside the weights. Rows, classes, depth, warps and stages. On an H200 the products are so
# fast that wider ones, and all in float32, are better written out: large tiles count for more.
_MLP: dict[tuple[str, int], tuple[int, int, int, int, int, int, int]] = {
    ("sm_80", 2): (256, 128, 64, 32, 32, 8, 2),
    ("sm_80", 4): (64, 64, 32, 32, 16, 4, 2),
    ("sm_90", 2): (64, 64, 64, 128, 64, 8, 2),
    ("sm_90", 4): (0, 0, 64, 64, 16, 8, 2),
    ("sm_100", 2): (256, 128, 128, 64, 32, 8, 2),
    ("sm_100", 4): (128, 64, 64, 64, 16, 8, 2),
    ("gfx942", 2): (128, 64, 128, 32, 32, 8, 1),
    ("gfx942", 4): (128, 64, 64, 32, 16, 4, 1),
}


def mlp_width(target: Target, itemsize: int, *, plain: bool) -> int:
    """Return the widest hidden layer that `mlp_confidence` keeps on the chip; 0 for none.

    Args:
        target: the device.
        itemsize: bytes of a weight.
        plain: whether the activation is ReLU and the saliency |w|, which need no more registers.
    """
    return _MLP[target.arch, itemsize][0 if plain else 1]


def mlp(target: Target, itemsize: int) -> Tile:
    """Return the tile of `mlp_confidence` where its last hidden layer stays on the chip."""
    _, _, rows, classes, depth, warps, stages = _MLP[target.arch, itemsize]
    return Tile(rows, classes, 1, depth, warps, stages)


def hidden_block(width: int) -> int:
    """Return the columns of the tile that holds a hidden layer: a power of two, at least 64."""
    return max(64, 1 << (width - 1).bit_length())


def premask(target: Target, itemsize: int, classes: int, depth: int, sub_models: int) -> bool:
    """Tell whether the masked heads of all sub-models are small enough to be written once."""
    width = together(sub_models)
    padded = -(-sub_models // width) * width
    return padded * classes * depth * itemsize <= PREMASK_SHARE * target.memory_bytes


def splits(target: Target, samples: int, rows: int, chunks: int) -> int:
    """Return over how many programs the path of a block of rows is dealt out.

    One, as soon as blocks of rows alone fill the device: then there is one launch and no buffer.
    """
    blocks = -(-samples // rows)
    return max(1, min(chunks, target.units // blocks))
