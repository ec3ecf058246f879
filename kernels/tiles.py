"""Block sizes of every target and element size: measured constants.

Those of sm_90 are the fastest on an H200 that spill no register, those of the other targets the
widest that spill none. Measure again with

    python -m lc_engine.kernels.aot     registers, spills and shared memory, without a device
    python -m benchmarks.gpu            times, on a device
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """The block sizes of one launch.

    Attributes:
        rows: samples that a program owns.
        classes: classes of one tile of the product.
        sub_models: sub-models side by side in its columns.
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


@dataclass(frozen=True)
class LinearSizes:
    """Sizes of `linear_confidence`, whose tile depends on the head and on K.

    Attributes:
        columns: classes x sub-models of a tile with 8 and with 2 sub-models side by side.
        scored_columns: the same where saliencies are loaded or drawn beside the weights.
        depth: features per step where weights are masked in the tile.
        premasked_depth: features per step where they are pre-masked.
        warps: warps (wavefronts) of a program.
        stages: steps whose loads are in flight.
    """

    columns: tuple[int, int]
    scored_columns: tuple[int, int]
    depth: int
    premasked_depth: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Sizes:
    """All sizes of one target and element size.

    Attributes:
        linear: of `linear_confidence`.
        product: of one sub-model's product with |w| as saliency: a layer, the cosine.
        vocabulary: classes of a tile of `token_nll`: plain, with entropy, with saliencies loaded or
            drawn beside the weights, with both.
        distance: of `prototype_confidence` with distances.
        mlp: of `mlp_confidence` with a hidden layer on the chip.
        mlp_widths: widest hidden layer on the chip with ReLU and |w|, and with GELU or saliencies
            loaded or drawn beside the weights; 0 for none.
    """

    linear: LinearSizes
    product: Tile
    vocabulary: tuple[int, int, int, int]
    distance: Tile
    mlp: Tile
    mlp_widths: tuple[int, int]


# By target and bytes of an element.
SIZES = {
    ("sm_80", 2): Sizes(
        linear=LinearSizes((128, 64), (64, 64), 64, 64, 8, 3),
        product=Tile(128, 64, 1, 64, 8, 3),
        vocabulary=(64, 64, 32, 16),
        distance=Tile(32, 16, 1, 32, 8, 1),
        mlp=Tile(64, 32, 1, 32, 8, 2),
        mlp_widths=(256, 128),
    ),
    ("sm_80", 4): Sizes(
        linear=LinearSizes((64, 64), (64, 32), 16, 16, 8, 3),
        product=Tile(128, 64, 1, 16, 8, 3),
        vocabulary=(64, 64, 32, 16),
        distance=Tile(32, 32, 1, 16, 8, 1),
        mlp=Tile(32, 32, 1, 16, 4, 2),
        mlp_widths=(64, 64),
    ),
    ("sm_90", 2): Sizes(
        linear=LinearSizes((256, 128), (128, 128), 64, 64, 8, 3),
        product=Tile(128, 128, 1, 64, 8, 3),
        vocabulary=(256, 128, 64, 64),
        distance=Tile(32, 16, 1, 32, 4, 1),
        mlp=Tile(64, 128, 1, 64, 8, 2),
        mlp_widths=(64, 64),
    ),
    ("sm_90", 4): Sizes(
        linear=LinearSizes((128, 128), (128, 128), 16, 32, 8, 3),
        product=Tile(128, 128, 1, 32, 8, 3),
        vocabulary=(128, 128, 64, 64),
        distance=Tile(16, 32, 1, 32, 4, 1),
        mlp=Tile(64, 64, 1, 16, 8, 2),
        mlp_widths=(0, 0),
    ),
    ("sm_100", 2): Sizes(
        linear=LinearSizes((128, 128), (128, 128), 64, 64, 8, 3),
        product=Tile(128, 128, 1, 64, 8, 3),
        vocabulary=(128, 128, 64, 32),
        distance=Tile(32, 16, 1, 32, 8, 1),
        mlp=Tile(128, 64, 1, 32, 8, 2),
        mlp_widths=(256, 128),
    ),
    ("sm_100", 4): Sizes(
        linear=LinearSizes((128, 128), (128, 128), 16, 16, 8, 3),
        product=Tile(128, 128, 1, 16, 8, 3),
        vocabulary=(128, 128, 64, 64),
        distance=Tile(32, 32, 1, 16, 8, 1),
        mlp=Tile(64, 64, 1, 16, 8, 2),
        mlp_widths=(128, 64),
    ),
    ("sm_120", 2): Sizes(
        linear=LinearSizes((64, 64), (64, 64), 64, 64, 8, 3),
        product=Tile(128, 64, 1, 64, 8, 3),
        vocabulary=(64, 64, 32, 16),
        distance=Tile(32, 16, 1, 32, 8, 1),
        mlp=Tile(64, 32, 1, 32, 8, 2),
        mlp_widths=(256, 128),
    ),
    ("sm_120", 4): Sizes(
        linear=LinearSizes((64, 64), (64, 32), 16, 16, 8, 3),
        product=Tile(128, 64, 1, 16, 8, 3),
        vocabulary=(64, 64, 32, 16),
        distance=Tile(32, 32, 1, 16, 8, 1),
        mlp=Tile(32, 32, 1, 16, 4, 2),
        mlp_widths=(64, 64),
    ),
    ("gfx942", 2): Sizes(
        linear=LinearSizes((128, 128), (128, 64), 64, 64, 8, 2),
        product=Tile(128, 128, 1, 64, 8, 2),
        vocabulary=(128, 128, 64, 64),
        distance=Tile(32, 16, 1, 32, 8, 1),
        mlp=Tile(128, 32, 1, 32, 8, 1),
        mlp_widths=(128, 64),
    ),
    ("gfx942", 4): Sizes(
        linear=LinearSizes((128, 128), (128, 128), 32, 32, 8, 2),
        product=Tile(128, 128, 1, 32, 8, 2),
        vocabulary=(128, 128, 64, 64),
        distance=Tile(32, 32, 1, 16, 8, 1),
        mlp=Tile(64, 32, 1, 16, 4, 1),
        mlp_widths=(128, 64),
    ),
    ("gfx950", 2): Sizes(
        linear=LinearSizes((128, 128), (64, 64), 64, 64, 8, 2),
        product=Tile(128, 128, 1, 64, 8, 2),
        vocabulary=(256, 256, 128, 128),
        distance=Tile(32, 16, 1, 32, 8, 1),
        mlp=Tile(128, 32, 1, 32, 8, 1),
        mlp_widths=(128, 128),
    ),
    ("gfx950", 4): Sizes(
        linear=LinearSizes((128, 128), (128, 128), 32, 32, 8, 2),
        product=Tile(128, 128, 1, 32, 8, 2),
        vocabulary=(256, 256, 128, 128),
        distance=Tile(32, 32, 1, 16, 8, 1),
        mlp=Tile(64, 32, 1, 16, 4, 1),
        mlp_widths=(256, 128),
    ),
}
