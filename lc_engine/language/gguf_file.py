"""Load causal language models from GGUF files: every weight as a number, the file parsed once."""

from __future__ import annotations

import importlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine._util.extras import require
from lc_engine.language.pretrained import built, forget_quantization

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

# `_parsed_once` changes a name of `gguf` for as long as a file is loaded.
_LOCK = threading.Lock()


def load_gguf(path: Path, dtype: torch.dtype) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Return model, tokenizer and the report of `from_pretrained`.

    Architectures that `transformers` would keep in packed blocks are unpacked too.

    Args:
        path: the file.
        dtype: of the weights.
    """
    transformers = require("transformers", "language")
    # Of architectures that may stay packed, blocks are multiplied by their scales in the dtype of
    # the model: in bfloat16 that is another number than the rounded product.
    first = torch.float32 if _may_stay_packed(path) else dtype
    options: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
    with _parsed_once():
        config = transformers.AutoConfig.from_pretrained(str(path.parent), **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), **options)
        # Before there were packed blocks there was no such configuration.
        packing = getattr(transformers, "GgufConfig", None)
        if packing is not None:
            options["quantization_config"] = packing(dequantize=True)
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            str(path.parent),
            config=config,
            dtype=first,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    if first != dtype:
        forget_quantization(model.config)
        model, _ = built(model.config, model.state_dict(), dtype)
    return model, tokenizer, report


def _may_stay_packed(path: Path) -> bool:
    """Return whether `transformers` has a loader that keeps this architecture's weights packed."""
    try:
        loader: Any = importlib.import_module("transformers.integrations.gguf")
    except ModuleNotFoundError:
        return False
    metadata, _ = loader.read_gguf_metadata(str(path))
    return metadata["general.architecture"] in loader.GGUF_ARCHS


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Share one parse of a file among the loaders of `transformers`.

    Each of config, tokenizer and weights parses it anew, for 20 s where the vocabulary has
    262,144 tokens, most of which passes in slices of `np.memmap`.
    """
    gguf = require("gguf", "language")
    whole: Any = gguf.GGUFReader

    class Reader(whole):  # type: ignore[misc]
        @property
        def data(self) -> np.ndarray:
            return self._data

        @data.setter
        def data(self, value: np.ndarray) -> None:
            # A slice of a plain array costs a fifth of one of a map; both are of the same memory.
            self._data = value.view(np.ndarray)

    parsed: dict[str, Any] = {}

    def read(path: Any, *arguments: Any) -> Any:
        if str(path) not in parsed:
            parsed[str(path)] = Reader(path, *arguments)
        return parsed[str(path)]

    with _LOCK:
        gguf.GGUFReader = read
        try:
            yield
        finally:
            gguf.GGUFReader = whole
