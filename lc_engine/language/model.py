"""Load language models of `transformers` from a folder, a GGUF file or a repository.

Causal language models, and models of images and text with their processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import torch

from lc_engine._util.extras import MissingExtraError, require
from lc_engine.language.adapters import base_of, is_adapter, merge_adapter, missing_base
from lc_engine.language.gguf_file import load_gguf
from lc_engine.language.images.model import reads_images
from lc_engine.language.pretrained import (
    has_images,
    load_folder,
    load_processor,
    load_tokenizer,
)
from lc_engine.models.device import resolve_device
from lc_engine.models.hugging_face import is_encoder, quiet
from lc_engine.ops.processor import multiplies_bfloat16

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

Precision = Literal["auto", "float32", "bfloat16", "float16"]

# Most tokens of a row where model and tokenizer state no limit.
_DEFAULT_WINDOW: Final = 4096

# Tensors that an error names.
_NAMED: Final = 5


@dataclass(frozen=True)
class LanguageModelSpec:
    """Which model to load: small to pickle, and the same model in every process.

    Attributes:
        name: a folder that `save_pretrained` wrote, a `.gguf` file or a folder with one, the name
            of a repository, which `transformers` looks up, or a folder with a LoRA adapter, which
            is merged into its base.
        dtype: of the weights; "auto" is `fast_dtype`.
        device: where it is loaded to; "auto" is CUDA where there is any, else the CPU.

    Raises:
        ValueError: an unknown dtype.
    """

    name: str
    dtype: Precision = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Precision):
            raise ValueError(f"dtype must be one of {get_args(Precision)}, got {self.dtype!r}")

    def load(self) -> tuple[nn.Module, Any]:
        """Return the model, in evaluation mode, and its tokenizer.

        Of a model of images and text with a processor beside it, the processor.

        No code that comes with a model is ever run.

        Raises:
            ValueError: not a causal language model that `transformers` can read; a checkpoint
                whose tensors are not those of its model, by name; or an adapter that is not
                understood, or lacks its base.
            MissingExtraError: transformers is not installed.
        """
        require("transformers", "language")
        device = resolve_device(self.device)
        dtype = fast_dtype(device) if self.dtype == "auto" else getattr(torch, self.dtype)
        if not is_adapter(self.name):
            model, tokenizer = _loaded(self.name, dtype)
            return model.to(device).eval(), tokenizer
        base = base_of(self.name)
        try:
            model, tokenizer = _loaded(base, dtype)
        except ValueError as error:
            raise missing_base(self.name, base, error) from None
        merge_adapter(model, self.name)
        own = (Path(self.name) / "tokenizer_config.json").is_file()
        if base != self.name and own and not reads_images(tokenizer):
            tokenizer = load_tokenizer(self.name)
        return model.to(device).eval(), tokenizer

    def to_dict(self) -> dict[str, Any]:
        """Return the name of the model; its weights have a digest of their own."""
        return {"name": Path(self.name).name}


def _loaded(name: str, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """Return a model without adapters, and its tokenizer.

    Raises:
        ValueError: see `LanguageModelSpec.load`.
    """
    gguf = _gguf_file(name)
    try:
        with quiet():
            if gguf is not None:
                model, tokenizer, report = load_gguf(gguf, dtype)
            else:
                model, report = load_folder(name, dtype)
                load = load_processor if has_images(name, model.config) else load_tokenizer
                tokenizer = load(name)
    except (MemoryError, torch.OutOfMemoryError, MissingExtraError):
        raise
    except Exception as error:  # files that are damaged raise anything at all
        raise ValueError(
            f"model {name} cannot be loaded as a causal language model: {_reason(error)}"
        ) from None
    _refuse_made_up(name, report)
    _refuse_packed(name, model)
    return model, tokenizer


def _gguf_file(name: str) -> Path | None:
    """Return the GGUF file of a model, None where it has other files."""
    path = Path(name)
    files = [path] if path.suffix == ".gguf" else []
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
    if not files:
        return None
    if len(files) > 1:
        raise ValueError(f"model {name} holds {len(files)} GGUF files; name one: {files[0]}")
    if not files[0].is_file():
        raise ValueError(f"model {name} cannot be loaded: {files[0]} does not exist")
    return files[0]


def is_language_model(name: str) -> bool:
    """Return whether a path is a folder or file of a causal language model."""
    path = Path(name)
    if path.suffix == ".gguf":
        return True
    if not path.is_dir() or is_encoder(name):
        return False
    return is_adapter(name) or (path / "config.json").exists() or any(path.glob("*.gguf"))


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """Return bfloat16 if the device multiplies it natively, else float32."""
    return torch.bfloat16 if multiplies_bfloat16(torch.device(device)) else torch.float32


def window_of(model: nn.Module, tokenizer: Any, asked: int | None) -> int:
    """Return the most tokens of a row: as asked for, or the limit of model and tokenizer.

    Raises:
        ValueError: more than the model has positions.
    """
    config: Any = model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(config, "max_position_embeddings", None)
    if asked is not None:
        if asked < 2:
            raise ValueError(f"max_tokens must be at least 2, got {asked}")
        if positions is not None and asked > positions:
            raise ValueError(f"max_tokens is {asked}, but the model has {positions} positions")
        return asked
    own = getattr(tokenizer, "model_max_length", None)
    limits = [n for n in (positions, own) if isinstance(n, int) and 2 <= n < 1 << 30]
    return min(limits, default=_DEFAULT_WINDOW)


def _refuse_made_up(name: str, report: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose tensors are not those of the model, which has random ones then.

    Args:
        name: of the model.
        report: of `from_pretrained`; a tensor tied to one that is there does not count as missing.
    """
    found = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "of another shape": sorted(
            f"{key} ({tuple(there)} in the file, {tuple(wanted)} in the model)"
            for key, there, wanted in report["mismatched_keys"]
        ),
        "not read": sorted(report["error_msgs"]),
    }
    faults = [
        f"{len(keys)} {fault}: {', '.join(keys[:_NAMED])}{' …' if len(keys) > _NAMED else ''}"
        for fault, keys in found.items()
        if keys
    ]
    if faults:
        raise ValueError(
            f"model {name}: the checkpoint does not hold the tensors of its model; "
            f"{'; '.join(faults)}. Is the file complete, and is it a causal language model?"
        )


def _refuse_packed(name: str, model: nn.Module) -> None:
    """Refuse a model that is not in float after all, as masks would miss its weights."""
    for module_name, module in model.named_modules():
        tensors = [*module._parameters.items(), *module._buffers.items()]
        for key, tensor in tensors:
            if tensor is None or "weight" not in key:
                continue
            if not tensor.is_floating_point() or tensor.element_size() < 2:
                raise ValueError(
                    f"model {name}: {module_name}.{key} is still packed ({tensor.dtype} in a "
                    f"{type(module).__name__}): take the checkpoint before quantization"
                )


def _reason(error: Exception) -> str:
    """Return what went wrong, on one line."""
    reason = " ".join(str(error).split())
    if "trust_remote_code" in reason:
        return (
            "it needs code of its own, and no code that comes with a model is ever run; "
            "use a model that transformers has a class for"
        )
    if isinstance(error, ValueError | OSError | ImportError):
        return reason
    return f"{type(error).__name__}: {reason}; is a file of it damaged or truncated?"
