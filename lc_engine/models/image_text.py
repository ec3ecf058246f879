"""Models of images and texts in one space, such as CLIP: images in, and prompts of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence


def is_image_text_model(model: nn.Module) -> bool:
    """Return whether a model maps images and texts to one space."""
    parts = ("get_image_features", "get_text_features", "vision_model")
    return all(hasattr(model, name) for name in parts)


class ImageTower(nn.Module):
    """The part of such a model that reads images; its output is one vector per image.

    Args:
        model: of `transformers`, with `vision_model` and perhaps `visual_projection`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", nn.Identity())

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return (N, D)."""
        found: Tensor = self.visual_projection(self.vision_model(pixel_values).pooler_output)
        return found

    def get_classifier(self) -> nn.Module:
        """Return what stands for no classifier: the output are the features."""
        return nn.Identity()


def prompt_vectors(model: Any, tokenizer: Any, prompts: Sequence[str]) -> tuple[Tensor, float]:
    """Return the unit vectors (C, D) of class prompts, and the temperature of their cosines.

    Args:
        model: of images and texts; it is not changed.
        tokenizer: its own.
        prompts: one per class.

    Raises:
        ValueError: one is longer than the model's window.
    """
    window = tokenizer.model_max_length
    for prompt, ids in zip(prompts, tokenizer(list(prompts))["input_ids"], strict=True):
        if len(ids) > window:
            raise ValueError(
                f"prompts: {prompt[:60]!r} has {len(ids)} tokens, the model reads {window}: "
                "make it shorter"
            )
    tokens = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        found = model.get_text_features(**tokens)
        vectors: Tensor = found if isinstance(found, Tensor) else found.pooler_output
        scale = float(model.logit_scale.exp())
    return functional.normalize(vectors.float()).clone(), 1 / scale
