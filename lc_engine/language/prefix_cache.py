"""The keys and values of a shared prefix, used by every row that begins with it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from lc_engine._util.extras import require
from lc_engine.models.state import evaluating

if TYPE_CHECKING:
    from torch import Tensor, nn


class PrefixCache:
    """Runs a decoder over a prefix once, for any number of rows that begin with it.

    Args:
        decoder: of a causal language model.
        device: where the decoder is.

    Attributes:
        supported: whether the decoder's cache is the keys and values of all tokens. With sliding
            windows, recurrent states and the like it is not: such models see every row whole.
    """

    def __init__(self, decoder: nn.Module, device: torch.device) -> None:
        self._decoder = decoder
        # The argument's name in transformers from 5.24 on, and before.
        parameters = inspect.signature(decoder.forward).parameters
        self._name = "cache" if "cache" in parameters else "past_key_values"
        cache_utils = require("transformers.cache_utils", "language")
        few = torch.zeros(1, 2, dtype=torch.int64, device=device)
        with evaluating(decoder), torch.inference_mode():
            cache = self.compute(few)
        self.supported: bool = type(cache) is cache_utils.DynamicCache and all(
            type(layer) is cache_utils.DynamicLayer for layer in cache.layers
        )

    def compute(self, ids: Tensor) -> Any:
        """Return the decoder's cache after tokens (1, P)."""
        return getattr(self._decoder(input_ids=ids, use_cache=True), self._name, None)

    def for_rows(self, cache: Any, rows: int) -> dict[str, Any]:
        """Return the arguments of a forward of `rows` rows that continue from a cached prefix."""
        cache_utils = require("transformers.cache_utils", "language")
        pairs = [
            (
                layer.keys.expand(rows, *layer.keys.shape[1:]),
                layer.values.expand(rows, *layer.values.shape[1:]),
            )
            for layer in cache.layers
        ]
        return {self._name: cache_utils.DynamicCache(pairs), "use_cache": True}
