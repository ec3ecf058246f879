"""Models of images and text: the language model in them, and what it is given for each row.

All sub-models share what comes before the language model: the vision tower, its projection and the
embedding of tokens run once for a row, and what they hand to the language model is kept.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lc_engine.models.state import evaluating

if TYPE_CHECKING:
    from lc_engine.language.tokens import Tokens


class LanguageSide(nn.Module):
    """The language model and the vocabulary head of a model of images and text.

    A causal language model like any other, so that its sub-models are those of text: the vision
    tower and its projection stay whole.

    Args:
        model: of `AutoModelForImageTextToText`.

    Raises:
        ValueError: it has no language model of its own, or no head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        whole: Any = model
        self.decoder: nn.Module = whole.get_decoder()
        head = whole.get_output_embeddings()
        if head is None or self.decoder is model or self.decoder is getattr(whole, "model", None):
            raise ValueError(
                f"{type(model).__name__} has no language model apart from its vision tower"
            )
        if getattr(whole.config, "is_encoder_decoder", False):
            raise ValueError(
                f"{type(model).__name__} reads its prompt with an encoder: only decoders of images "
                "and text in one row of tokens are scored"
            )
        self.head: nn.Module = head
        self.config = whole.config
        # Not a child: its other modules are no part of the sub-models.
        object.__setattr__(self, "_whole", model)

    @property
    def whole(self) -> Any:
        """The model itself."""
        return self.__dict__["_whole"]

    def get_decoder(self) -> nn.Module:
        """Return the language model."""
        return self.decoder

    def get_output_embeddings(self) -> nn.Module:
        """Return the vocabulary head."""
        return self.head

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of tokens."""
        found: nn.Module = self.whole.get_input_embeddings()
        return found

    def forward(self, **inputs: Any) -> Any:
        """Return what the whole model returns."""
        return self.whole(**inputs)

    def decoder_inputs(self, row: Tokens) -> dict[str, Any]:
        """Return what the language model is given for a row with images, by name.

        Raises:
            ValueError: the model does not call its language model by names once.
        """
        whole, given = self.whole, self._inputs(row)
        handle = self.decoder.register_forward_pre_hook(_stop, with_kwargs=True)
        try:
            with evaluating(whole), torch.inference_mode():
                whole(**given)
        except _ReachedError as reached:
            return reached.inputs(self.decoder)
        finally:
            handle.remove()
        raise ValueError(f"{type(whole).__name__} does not run its language model for images")

    def check(self, row: Tokens) -> None:
        """Compare the logits of a row with images with those of the whole model.

        Raises:
            ValueError: they differ, so that the language model alone does not tell them.
        """
        whole = self.whole
        with evaluating(whole), torch.inference_mode():
            wanted = whole(**self._inputs(row)).logits.float()
            found = self.head(self.decoder(**self.decoder_inputs(row))[0]).float()
        weight: Any = self.head.weight
        tolerance = torch.finfo(weight.dtype).eps * 16 * wanted.abs().max().clamp_min(1.0)
        if wanted.shape != found.shape or not bool((wanted - found).abs().max() <= tolerance):
            raise ValueError(
                f"{type(whole).__name__} computes more than its language model and a linear head "
                "after it has read the images, which is not understood here"
            )

    def _inputs(self, row: Tokens) -> dict[str, Any]:
        """Return what the whole model is given for a row with images."""
        assert row.inputs is not None
        weight: Any = self.head.weight
        ids = torch.from_numpy(row.ids).to(weight.device)[None]
        given: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        for name, value in row.inputs.items():
            dtype = weight.dtype if value.is_floating_point() else value.dtype
            given[name] = value.to(weight.device, dtype)
        return given


class _ReachedError(Exception):
    """The language model was called: what follows is computed for each sub-model."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self._args, self._kwargs = args, kwargs

    def inputs(self, decoder: nn.Module) -> dict[str, Any]:
        """Return the arguments by name."""
        names = inspect.signature(decoder.forward).parameters
        return dict(zip(names, self._args, strict=False)) | self._kwargs


def _stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise _ReachedError(args, kwargs)


def copied(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs of a language model of which a forward may write to the tensors."""
    return {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }


def reads_images(processor: Any) -> bool:
    """Return whether what comes with a model is a processor of images and text."""
    return hasattr(processor, "tokenizer") and hasattr(processor, "image_processor")
