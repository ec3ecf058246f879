"""Load causal language models from folders: every tensor read, checked and dequantized here.

`transformers` gets the state dict, not the folder, so that no other reader, adapter or packed
format comes between.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from lc_engine._util.extras import require
from lc_engine._util.json_file import read_json_object
from lc_engine.models.checkpoint import read_folder
from lc_engine.models.hugging_face import file_of
from lc_engine.models.scaled import dequantized, is_scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

# JSON files that `transformers` reads; a damaged one is named here.
_JSON_FILES: Final = ("config.json", "generation_config.json", "tokenizer_config.json")

_CAUSAL: Final = "AutoModelForCausalLM"
# Of a processor of images; without one of them a model of images and text is used for text only.
_PROCESSOR_FILES: Final = ("processor_config.json", "preprocessor_config.json")

# Formats that are a weight in 8 bits times its scale, with the block size where none is stated.
_SCALED_METHODS: Final[dict[str, tuple[int, int] | None]] = {
    "fp8": (128, 128),
    "mxfp8": (1, 32),
    "fbgemm_fp8": None,
    "modelopt": None,
}
# Of compressed-tensors: weights in float8, and in int8.
_SCALED_FORMATS: Final = ("float-quantized", "int-quantized", "naive-quantized")


class Quantization(NamedTuple):
    """How a checkpoint is quantized.

    Attributes:
        method: its name.
        is_scaled: whether its weights are in 8 bits beside scales; see `models.scaled`.
        blocks: (m, n) weights that share a scale, None where none are stated.
    """

    method: str
    is_scaled: bool
    blocks: tuple[int, int] | None


def load_folder(name: str, dtype: torch.dtype) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model in float, and the report of `from_pretrained`.

    Args:
        name: a folder, or a repository that `huggingface_hub` fetches.
        dtype: of the weights.

    Raises:
        ValueError: the folder holds no model that generates text, is damaged, or is quantized in a
            way that cannot be undone here.
        FileNotFoundError: weights are missing.
    """
    transformers = require("transformers", "language")
    if Path(name).is_dir():
        check_json(Path(name))
    config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    folder = _folder(name)
    state = read_folder(folder)
    quantization = _quantization(config)
    if quantization is None or quantization.is_scaled:
        if is_scaled(state):
            blocks = None if quantization is None else quantization.blocks
            state = dequantized(state, dtype, blocks, str(folder))
        forget_quantization(config)
    else:
        _ask_for_floats(config, quantization.method)
    auto_class = "AutoModelForImageTextToText" if has_images(name, config) else _CAUSAL
    model, report = built(config, state, dtype, auto_class)
    named: Any = model
    named.name_or_path = named.config.name_or_path = name
    return model, report


def has_images(name: str, config: Any) -> bool:
    """Return whether a folder or repository is a model of images and text with its processor."""
    auto = require("transformers.models.auto.modeling_auto", "language")
    known: Mapping[str, str] = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    architectures = getattr(config, "architectures", None) or [""]
    return architectures[0] in known.values() and any(
        file_of(name, file) is not None for file in _PROCESSOR_FILES
    )


def load_processor(name: str) -> Any:
    """Return the processor of a model of images and text.

    Raises:
        ValueError: a file of it is damaged.
    """
    transformers = require("transformers", "language")
    try:
        return transformers.AutoProcessor.from_pretrained(name, trust_remote_code=False)
    except Exception:
        check_json(Path(name), ("tokenizer.json", *_PROCESSOR_FILES))
        raise


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of a folder or repository.

    Raises:
        ValueError: a file of it is damaged.
    """
    transformers = require("transformers", "language")
    try:
        return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception:
        check_json(Path(name), ("tokenizer.json",))  # long, and read twice only if it matters
        raise


def check_json(folder: Path, names: Sequence[str] = _JSON_FILES) -> None:
    """Refuse a folder whose JSON files are damaged.

    Raises:
        ValueError: naming the file.
    """
    for name in names:
        if (folder / name).is_file():
            read_json_object(folder / name)


def _folder(name: str) -> Path:
    """Return a folder with the weights, fetched if it is a repository."""
    if Path(name).is_dir():
        return Path(name)
    fetch = require("huggingface_hub", "language").snapshot_download
    for suffix in ("safetensors", "bin"):
        wanted = [f"*.{suffix}", f"*.{suffix}.index.json", "config.json"]
        folder = Path(fetch(name, allow_patterns=wanted, ignore_patterns=["*/*"]))
        if any(folder.glob(f"*.{suffix}")):
            break
    return folder


def built(
    config: Any,
    state: dict[str, Tensor],
    dtype: torch.dtype,
    auto_class: str = _CAUSAL,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model with the weights of a state dict, and the report of `from_pretrained`."""
    auto: Any = getattr(require("transformers", "language"), auto_class)
    # Without weights: the class of the configuration.
    with torch.device("meta"):
        kind = type(auto.from_config(config, trust_remote_code=False))
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=dtype,
        output_loading_info=True,
        # Mismatched shapes are reported with the rest instead of raised by themselves.
        ignore_mismatched_sizes=True,
    )
    return model, report


def _quantization(config: Any) -> Quantization | None:
    """Return how a checkpoint is quantized, None where it is not."""
    fields = _quantization_fields(config)
    if fields is None:
        return None
    method = str(fields.get("quant_method", "a method without a name"))
    if fields.get("load_in_4bit") or fields.get("load_in_8bit"):
        method = "bitsandbytes"
    if method in _SCALED_METHODS:
        stated = fields.get("weight_block_size", _SCALED_METHODS[method])
        return Quantization(method, True, None if stated is None else (stated[0], stated[1]))
    if method == "compressed-tensors" and fields.get("format") in _SCALED_FORMATS:
        groups = dict(fields.get("config_groups") or {}).values()
        weights = [group.get("weights") or {} for group in groups]
        sizes = {tuple(w["block_structure"]) for w in weights if w.get("block_structure")}
        if not fields.get("sparsity_config") and len(sizes) <= 1:
            return Quantization(method, True, next(iter(sizes), None))
    return Quantization(method, False, None)


def _quantization_fields(config: Any) -> dict[str, Any] | None:
    for part in (config, config.get_text_config(decoder=True)):
        found = getattr(part, "quantization_config", None)
        if found is not None:
            return found if isinstance(found, dict) else dict(found.to_dict())
    return None


def forget_quantization(config: Any) -> None:
    """Make a configuration that of a model in float, in place."""
    for part in (config, config.get_text_config(decoder=True)):
        if getattr(part, "quantization_config", None) is not None:
            del part.quantization_config


def _ask_for_floats(config: Any, method: str) -> None:
    """Ask `transformers` to dequantize on loading.

    Raises:
        ValueError: it cannot, for this method.
    """
    known = require("transformers.quantizers.auto", "language").AUTO_QUANTIZATION_CONFIG_MAPPING
    kind = known.get(method)
    if kind is None or "dequantize" not in inspect.signature(kind.__init__).parameters:
        raise ValueError(
            f"its weights are quantized with {method}, which cannot be undone while it is loaded: "
            "take the checkpoint before quantization, or load this one where its package is "
            "installed, call model.dequantize() and save_pretrained() it"
        )
    for part in (config, config.get_text_config(decoder=True)):
        found = getattr(part, "quantization_config", None)
        if isinstance(found, dict):
            found["dequantize"] = True
