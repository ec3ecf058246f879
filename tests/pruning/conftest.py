from __future__ import annotations

import sys

import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers import tiny_language_model as tiny
from helpers.pruning import pictures


@pytest.fixture(autouse=True)
def _own_search_path(monkeypatch):
    """The command adds the current folder to the search path, for its own process."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Options of a small ResNet for images of 32 pixels."""
    path = tmp_path_factory.mktemp("model") / "test_resnet.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    return ["--model=timm/test_resnet", f"--checkpoint={path}", "--image-size=32"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 30 JPEG files in three classes, one of them broken."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    pixels, labels = pictures(30)
    for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = root / ("ant", "bee", "cat")[label]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(folder / f"{row:03d}.jpg", quality=95)
    (root / "bee" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return root


@pytest.fixture(scope="session")
def language_model(tmp_path_factory):
    """Options of a language model of two layers."""
    folder = tmp_path_factory.mktemp("language")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return [f"--model={folder}", "--dtype=float32"]
