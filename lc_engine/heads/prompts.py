"""Prototypes from texts in place of class means: zero-shot classes of CLIP-like models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.heads.prototype import Prototypes
from lc_engine.models.hugging_face import load_whole
from lc_engine.models.image_text import is_image_text_model, prompt_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence


def prompt_prototypes(name: str, prompts: Sequence[str]) -> tuple[Prototypes, float]:
    """Return a prototype per class prompt, and the temperature of the model's cosines.

        prototypes, temperature = prompt_prototypes(name, ["a photo of a cat", "a photo of a dog"])
        scorer = Scorer(name, logit="cosine", temperature=temperature, labels=None)
        scorer.use_prototypes(prototypes)

    Args:
        name: of a model of images and texts, as `ModelSpec` takes it.
        prompts: one per class, in the order of the labels.

    Raises:
        ValueError: fewer than two prompts, an empty one, one twice, one that is longer than the
            model's window, or another kind of model.
    """
    bare = [prompt.strip() for prompt in prompts]
    for i, prompt in enumerate(bare):
        if not prompt or prompt in bare[:i]:
            wrong = f"prompt {i + 1}, {prompt!r:.60}, is there twice" if prompt else "one is empty"
            raise ValueError(f"prompts must be distinct, one per class: {wrong}")
    if len(bare) < 2:
        raise ValueError(f"prompts must be two at least, one per class, got {len(bare)}")
    model, tokenizer = load_whole(name)
    if not is_image_text_model(model):
        raise ValueError(
            f"prompts: {name} does not map texts and images to one space: use a CLIP-like model"
        )
    vectors, temperature = prompt_vectors(model, tokenizer, prompts)
    labels = torch.arange(len(prompts))
    return Prototypes(labels, vectors, torch.ones(len(prompts), dtype=torch.int64)), temperature
