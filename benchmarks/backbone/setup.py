"""Models and image files of the backbone benchmarks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed

from lc_engine import naive
from lc_engine.data.readers.images import decode_image
from lc_engine.demo import digits
from lc_engine.models.load import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from lc_engine.ops import PathScores
    from lc_engine.path.learning_path import LearningPath

MODELS = ("EfficientNet-Lite0", "resnet18", "vit_tiny_patch16_224")
TRAINED_SIDE = 96  # of the images that `pretrain` ends with and `ranking` scores


def untrained(name: str, side: int, **keywords: Any) -> torch.nn.Module:
    """Return a timm model with seeded weights for images of a side length."""
    torch.manual_seed(0)
    # timm initializes the last norm of a ResNet's blocks to 0: nothing would be left to multiply.
    fixed = {"zero_init_last": False} if name == "resnet18" else {"img_size": side}
    return timm.create_model(name, pretrained=False, **fixed, **keywords)


@functools.cache
def model(name: str, weights: Path | None = None, side: int = 224) -> torch.nn.Module:
    """Load a model for images of a side length.

    Packages carry trained weights of EfficientNet-Lite0 only: without a file of
    `benchmarks.backbone.pretrain`, the others have seeded weights, which is enough for timing.
    """
    if name == "EfficientNet-Lite0":
        if weights is not None:
            raise ValueError(f"{name} has its ImageNet weights: leave out {weights}")
        return ModelSpec("efficientnet-lite0").load().model
    if weights is None:
        return untrained(name, side).eval()
    state = load_file(weights)
    network = untrained(name, side, num_classes=10)
    if "pos_embed" in state:
        grid = network.patch_embed.grid_size
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], list(grid))
    network.load_state_dict(state)
    return network.eval()


@functools.cache
def transform(side: int):
    return ModelSpec("efficientnet-lite0", image_size=side).load().transform


def write_images(root: Path, rows: int) -> Path:
    """Write MNIST digits as PNG files, one sub-folder per class, and return the folder."""
    digits.write_folders(root, -(-rows // 10), 0, seed=0)
    for surplus in sorted((root / "train").glob("*/*.png"))[rows:]:
        surplus.unlink()
    return root / "train"


class Files(torch.utils.data.Dataset):
    """The images, read as the released code reads them."""

    def __init__(self, folder: Path, side: int) -> None:
        self.files = sorted(folder.glob("*/*.png"))
        self.side = side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = decode_image(self.files[i].read_bytes())
        return transform(self.side)(image), int(self.files[i].parent.name)


def released_way(
    name: str,
    folder: Path,
    side: int,
    path: LearningPath,
    workers: int,
    weights: Path | None = None,
) -> PathScores:
    """Score like the released code: one pass over the files per sub-model."""

    def read():
        return torch.utils.data.DataLoader(Files(folder, side), batch_size=32, num_workers=workers)

    return naive.released_way(naive.feature_extractor(model(name, weights, side)), read, path)
