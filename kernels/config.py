"""Which formulation and tile a launch takes: functions of shape, dtype and target, no autotuning.

So the first call is as fast as the second, no result depends on a tuner's measurements, and every
configuration that can run is compiled and checked ahead of time (`aot`). A tile does not depend on
the number of rows, so a row's score does not depend on its batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lc_engine.kernels.tiles import SIZES, Tile

if TYPE_CHECKING:
    from lc_engine.kernels.targets import Target

# Of every launch, beside warps and stages. Triton fuses a multiplication and an addition by default
# up to 3.9, which warns where it is not told, and not from 3.10 on: a score would change with it.
OPTIONS = {"enable_fp_fusion": True}
# Share of a device's memory that the K masked copies of a head may take.
PREMASK_SHARE = 1 / 16
# Bytes of hidden activations (K, rows, width) that a split MLP keeps in memory at a time.
HIDDEN_BYTES = 1 << 28


def sub_model_block(sub_models: int) -> int:
    """Return how many sub-models lie side by side in a tile of `linear_confidence`.

    Eight are one column group of every matrix instruction, so a thread holds the softmax state of
    its own sub-models only and sums over classes without a shuffle.
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
        premasked: whether the weights are pre-masked.
        scored: whether saliencies are loaded or drawn in the tile, beside the weights.
    """
    sizes = SIZES[target.arch, itemsize].linear
    width = sub_model_block(sub_models)
    columns = (sizes.scored_columns if scored else sizes.columns)[0 if width == 8 else 1]
    if classes <= 16 and width == 8:
        columns = min(columns, 128)
    depth = sizes.premasked_depth if premasked else sizes.depth
    return Tile(128, columns // width, width, depth, sizes.warps, sizes.stages)


def product(target: Target, itemsize: int, *, scored: bool = False) -> Tile:
    """Return the tile of one sub-model's product: the cosine, a layer of an MLP.

    Saliencies loaded or drawn beside the weights (`scored`) take the registers of half the columns.
    """
    tile = SIZES[target.arch, itemsize].product
    return replace(tile, classes=tile.classes // 2) if scored else tile


def vocabulary(target: Target, itemsize: int, *, scored: bool, entropy: bool) -> Tile:
    """Return the tile of `token_nll`, whose classes are the vocabulary.

    Args:
        target: the device.
        itemsize: bytes of a weight.
        scored: whether saliencies are loaded or drawn in the tile, beside the weights.
        entropy: whether the entropy is computed too.
    """
    sizes = SIZES[target.arch, itemsize]
    return replace(sizes.product, classes=sizes.vocabulary[2 * scored + entropy])


def prototype(target: Target, itemsize: int, cosine: bool) -> Tile:
    """Return the tile of `prototype_confidence`.

    The distances keep rows x classes x depth sums in registers, so their tile is small.
    """
    return product(target, itemsize) if cosine else SIZES[target.arch, itemsize].distance


def mlp_width(target: Target, itemsize: int, *, plain: bool) -> int:
    """Return the widest hidden layer that `mlp_confidence` keeps on the chip; 0 for none.

    Args:
        target: the device.
        itemsize: bytes of a weight.
        plain: whether the activation is ReLU and the saliency |w|, which need no more registers.
    """
    return SIZES[target.arch, itemsize].mlp_widths[0 if plain else 1]


def mlp(target: Target, itemsize: int) -> Tile:
    """Return the tile of `mlp_confidence` where its last hidden layer stays on the chip."""
    return SIZES[target.arch, itemsize].mlp


def hidden_block(width: int) -> int:
    """Return the columns of the tile that holds a hidden layer: a power of two, at least 64."""
    return max(64, 1 << (width - 1).bit_length())


def premask(target: Target, itemsize: int, classes: int, depth: int, sub_models: int) -> bool:
    """Return whether the masked heads of all sub-models are small enough to be written once."""
    width = sub_model_block(sub_models)
    padded = -(-sub_models // width) * width
    return padded * classes * depth * itemsize <= PREMASK_SHARE * target.memory_bytes


def splits(target: Target, samples: int, rows: int, chunks: int) -> int:
    """Return the number of programs that share the path of a block of rows.

    1 where blocks of rows alone fill the device: then there is one launch and no buffer.
    """
    blocks = -(-samples // rows)
    return max(1, min(chunks, target.units // blocks))
