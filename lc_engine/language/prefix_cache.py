"""The keys and values that a shared prefix leaves, handed to every row behind it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from lc_engine._util.extras import require
from lc_engine.models.state import evaluating

if TYPE_CHECKING:
    from torch import Tensor, nn


class PrefixKeys:
    """Runs a decoder over a prefix once, and over rows behind it.

    Args:
        decoder: of a causal language model.

    Attributes:
        can_share: whether what the decoder leaves behind a prefix is the keys and values of all its
            tokens. Not so with sliding windows, recurrent states and the like: such models see
            every row whole.
    """

    def __init__(self, decoder: nn.Module, device: torch.device) -> None:
        self._decoder = decoder
        # The argument's name in transformers from 5.24 on, and before.
        known = inspect.signature(decoder.forward).parameters
        self._name = "cache" if "cache" in known else "past_key_values"
        cache_utils = require("transformers.cache_utils", "language")
        few = torch.zeros(1, 2, dtype=torch.int64, device=device)
        with evaluating(decoder), torch.inference_mode():
            left = self.of(few)
        self.can_share: bool = type(left) is cache_utils.DynamicCache and all(
            type(layer) is cache_utils.DynamicLayer for layer in left.layers
        )

    def of(self, ids: Tensor) -> Any:
        """Give what the decoder leaves behind tokens (1, P)."""
        return getattr(self._decoder(input_ids=ids, use_cache=True), self._name, None)

    def for_rows(self, left: Any, rows: int) -> dict[str, Any]:
        """Give the arguments that put some rows behind a prefix; a forward appends to its own."""
        cache_utils = require("transformers.cache_utils", "language")
        pairs = [
            (
                layer.keys.expand(rows, *layer.keys.shape[1:]),
                layer.values.expand(rows, *layer.values.shape[1:]),
            )
            for layer in left.layers
        ]
        return {self._name: cache_utils.DynamicCache(pairs), "use_cache": True}
