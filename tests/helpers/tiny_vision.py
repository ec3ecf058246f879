"""Tiny models of images of Hugging Face with seeded weights, saved with their processors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import transformers

from helpers import tiny_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

SIDE = 16
_TOWER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_IMAGES = _TOWER | {"image_size": SIDE, "patch_size": 8}
_TEXTS = _TOWER | {
    "vocab_size": 5 + len(tiny_encoder.WORDS),
    "max_position_embeddings": 40,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ViT": _IMAGES,
    "Dinov2": _IMAGES,
    "CLIP": {"vision_config": _IMAGES, "text_config": _TEXTS, "projection_dim": 12},
    "Siglip": {"vision_config": _IMAGES, "text_config": _TEXTS},
}


def make(family: str, task: str, **more: Any) -> nn.Module:
    """Return a model of images with seeded weights."""
    return tiny_encoder.seeded(family, task, CONFIGS[family] | more, larger=6)


def processor() -> Any:
    """Return what makes images of the models' size."""
    return transformers.CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, do_resize=True
    )


def save(folder: Path, family: str, task: str, **more: Any) -> str:
    """Write a model, its image processor and its tokenizer, if it has one, to a folder."""
    make(family, task, **more).save_pretrained(folder)
    processor().save_pretrained(folder)
    if "text_config" in CONFIGS[family]:
        tiny_encoder.tokenizer("Roberta").save_pretrained(folder)
    return str(folder)


def pictures(folder: Path, classes: int, each: int) -> None:
    """Write seeded pictures, a sub-folder per class."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / str(label) / f"{i}.png")
