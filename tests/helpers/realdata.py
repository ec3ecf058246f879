"""Real weights and real images for the tests, fetched once with pip into the cache folder."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import PIL.Image
import pytest
import timm
import torch

from lc_engine._util import wheels as packages
from lc_engine.models.load import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

FOOLBOX = ("foolbox", "3.3.4")
SIDE = 64


@pytest.fixture(scope="session")
def lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet-1k weights."""
    return ModelSpec("efficientnet-lite0").load().model


@pytest.fixture(scope="session")
def resnet18(images: tuple[Tensor, Tensor]) -> nn.Module:
    """timm's ResNet-18 for 1,000 classes, with random weights: no package carries trained ones.

    Its norm layers get the statistics of real images, so that features are of a usual size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("resnet18", pretrained=False)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over what it saw
    with torch.no_grad():
        model.train()(images[0])
    return model.eval()


@pytest.fixture(scope="session")
def models(lite0: nn.Module, resnet18: nn.Module) -> dict[str, nn.Module]:
    return {"lite0": lite0, "resnet18": resnet18}


@pytest.fixture(scope="session")
def images() -> tuple[Tensor, Tensor]:
    """20 ImageNet images (20, 3, 64, 64) as EfficientNet-Lite0 takes them, and labels (20,)."""
    transform = ModelSpec("efficientnet-lite0", image_size=SIDE).load().transform
    files = image_files()
    inputs = [
        transform(PIL.Image.open(io.BytesIO(content)).convert("RGB")) for _, content, _ in files
    ]
    return torch.stack(inputs), torch.tensor([label for _, _, label in files])


def image_files(kind: str = "imagenet") -> list[tuple[str, bytes, int]]:
    """Labelled images of one kind: (file name, content, label)."""
    found = []
    for name in packages.names(*FOOLBOX, f"foolbox/data/{kind}_"):
        stem = name.rpartition("/")[2]
        label = int(stem.rpartition(".")[0].rpartition("_")[2])
        found.append((stem, packages.read(*FOOLBOX, name), label))
    return found
