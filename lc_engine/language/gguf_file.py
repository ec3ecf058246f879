"""Load causal language models from GGUF files: every weight as a number, the file parsed once."""

from __future__ import annotations

import importlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from lc_engine._util.extras import require
from lc_engine.language.pretrained import built, forget_quantization

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import nn

_ROPE: Final = "rope_f"
_ROPE_FACTORS: Final = "rope_freqs.weight"
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
    with _parsed_once() as parsed:
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
    for reader in parsed.values():
        _use_rope_factors(model, path, {tensor.name: tensor.data for tensor in reader.tensors})
    if first != dtype:
        forget_quantization(model.config)
        model, _ = built(model.config, model.state_dict(), dtype)
    return model, tokenizer, report


def _use_rope_factors(model: nn.Module, path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Divide the rotary frequencies by the factors of a file, as llama.cpp does, in place.

    Llama 3.1 and later have them in place of a field of their configuration, and the loader of
    `transformers` does not read them.

    Raises:
        ValueError: factors that are not understood.
    """
    names = [name for name in tensors if name.startswith(_ROPE)]
    if not names:
        return
    factors = torch.tensor(tensors[names[0]], dtype=torch.float32)
    buffers = [
        buffer
        for module in model.modules()
        for key, buffer in module._buffers.items()
        if buffer is not None and key.endswith("inv_freq") and buffer.shape == factors.shape
    ]
    if names != [_ROPE_FACTORS] or not buffers:
        raise ValueError(
            f"{path} scales its rotary frequencies by {', '.join(names)}, which is not understood "
            f"for {type(model).__name__}: take the model's safetensors"
        )
    for buffer in {buffer.data_ptr(): buffer for buffer in buffers}.values():
        buffer.div_(factors.to(buffer.device))


def _may_stay_packed(path: Path) -> bool:
    """Return whether `transformers` has a loader that keeps this architecture's weights packed."""
    try:
        loader: Any = importlib.import_module("transformers.integrations.gguf")
    except ModuleNotFoundError:
        return False
    metadata, _ = loader.read_gguf_metadata(str(path))
    return metadata["general.architecture"] in loader.GGUF_ARCHS


@contextmanager
def _parsed_once() -> Iterator[Mapping[str, Any]]:
    """Share one parse of a file among the loaders of `transformers`, and yield it by its path.

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
            yield parsed
        finally:
            gguf.GGUFReader = whole
