"""Merge LoRA adapters of the `peft` format into a model, with `peft` installed or not.

    W ← W + s B A        s = alpha / r, with rsLoRA alpha / √r

(Hu et al., "LoRA", arXiv 2106.09685, section 4.1; Kalajdzievski, "rsLoRA", arXiv 2312.03732). Masks
then see the weights that the model multiplies by, not those of A, B and W apart.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lc_engine._util.json_file import read_json_object
from lc_engine.models.checkpoint import check_state, read_file

if TYPE_CHECKING:
    from torch import Tensor, nn

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
# Fields that do not change what an adapter adds, or that are taken into account here.
_UNDERSTOOD: Final = frozenset(
    {
        *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config"),
        *("eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode"),
        *("init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha"),
        *("lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r"),
        *("rank_pattern", "revision", "runtime_config", "target_modules", "task_type"),
        "use_rslora",
    }
)
# Ways to begin that leave the base as it is; PiSSA, OLoRA, CorDA and LoftQ change it.
_BEGINNINGS: Final = (True, False, None, "gaussian", "eva", "orthogonal")
_KEY: Final = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.(?:default\.)?weight")


class _Pair(NamedTuple):
    a: Tensor
    b: Tensor


def is_adapter(name: str) -> bool:
    """Return whether a path is a folder with an adapter, and perhaps its base beside it."""
    return (Path(name) / _CONFIG).is_file()


def base_of(name: str) -> str:
    """Return the base model of an adapter: the folder itself, or the one its configuration names.

    Raises:
        ValueError: the configuration is damaged or names no base.
    """
    folder = Path(name)
    if _holds_model(folder):
        return name
    base = read_json_object(folder / _CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(f"adapter {name} has no base model, and names none: {_remedy()}")
    # peft reads a relative path from the working directory; people write it from the adapter.
    found = {path.resolve(): path for path in (Path(base), folder / base) if _holds_model(path)}
    if len(found) > 1:
        raise ValueError(
            f"adapter {name}: its base {base!r} is one model in the working directory and another "
            f"beside the adapter ({', '.join(map(str, found))}): write the absolute path of one to "
            f"base_model_name_or_path in {_CONFIG}"
        )
    return str(next(iter(found.values()))) if found else base


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or any(folder.glob("*.gguf"))


def missing_base(name: str, base: str, error: Exception) -> ValueError:
    """Return the error of an adapter whose base cannot be loaded."""
    return ValueError(f"adapter {name}: {error}; its base is {base!r}: {_remedy()}")


def merge_adapter(model: nn.Module, name: str) -> None:
    """Add an adapter to the weights of its base, in place, in float32.

    Args:
        model: the base, which is then what the adapter makes of it.
        name: the adapter's folder.

    Raises:
        FileNotFoundError: the adapter has no weights.
        ValueError: it is damaged, is not a plain LoRA, or does not fit the model.
    """
    folder = Path(name)
    config = read_json_object(folder / _CONFIG)
    _check_understood(folder, config)
    pairs = _pairs(folder)
    modules = dict(model.named_modules())
    unknown = [key for key in pairs if key not in modules]
    if unknown:
        raise ValueError(
            f"adapter {folder} changes {len(unknown)} modules that its base "
            f"({type(model).__name__}) does not have, such as {unknown[0]}: is it that of another "
            "model?"
        )
    owners: dict[int, list[str]] = {}
    for key, module in modules.items():
        for part, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(parameter.data_ptr(), []).append(f"{key}.{part}")
    for key, pair in pairs.items():
        weight = modules[key]._parameters.get("weight")
        change = pair.b.float() @ pair.a.float() * _scale(config, key, len(pair.a), folder)
        if type(modules[key]).__name__ == "Conv1D":  # of GPT-2, whose weight is (in, out)
            change = change.T
        if weight is None or weight.shape != change.shape:
            raise ValueError(
                f"adapter {folder} does not fit its base: it adds {tuple(change.shape)} to "
                f"{key}.weight, which has {None if weight is None else tuple(weight.shape)}"
            )
        tied = [other for other in owners[weight.data_ptr()] if other != f"{key}.weight"]
        if tied:
            raise ValueError(
                f"adapter {folder} changes {key}.weight, which is tied to {tied[0]}: merge it "
                "with peft (merge_and_unload) after untying them, and save the model"
            )
        weight.data.copy_((weight.data.float() + change.to(weight.device)).to(weight.dtype))


def _check_understood(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"adapter {folder} is of the type {kind}, not LORA: {_merged_by_peft()}")
    others = sorted(key for key, value in config.items() if value and key not in _UNDERSTOOD)
    if config.get("bias", "none") != "none":
        others.append("bias")
    beginning = config.get("init_lora_weights")
    if others:
        raise ValueError(
            f"adapter {folder} uses {', '.join(others)}, which a plain LoRA has not: "
            f"{_merged_by_peft()}"
        )
    if beginning not in _BEGINNINGS:
        raise ValueError(
            f"adapter {folder} was begun with init_lora_weights={beginning!r}, which changes its "
            f"base: {_merged_by_peft()}"
        )


def _pairs(folder: Path) -> dict[str, _Pair]:
    """Return A (r, in) and B (out, r) by the name of the module that they change."""
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"adapter {folder} has no weights: {' or '.join(_WEIGHTS)}")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in check_state(path, read_file(path)).items():
        found = _KEY.fullmatch(name)
        if found is None or value.dim() != 2 or not value.is_floating_point():
            raise ValueError(
                f"{path} holds {name} {tuple(value.shape)}, which a plain LoRA of linear layers "
                f"has not: {_merged_by_peft()}"
            )
        parts.setdefault(found[1], {})[found[2]] = value
    for name, part in parts.items():
        if len(part) < 2 or part["A"].shape[0] != part["B"].shape[1]:
            raise ValueError(f"{path}: lora_A and lora_B of {name} do not fit each other")
    return {name: _Pair(part["A"], part["B"]) for name, part in parts.items()}


def _scale(config: dict[str, Any], name: str, rank: int, folder: Path) -> float:
    """Return s of a module; patterns match the end of its name, the first one that does."""
    stated = _matched(config.get("rank_pattern"), name, config.get("r", 8))
    if stated != rank:
        raise ValueError(
            f"adapter {folder} states rank {stated} for {name}, and its weights have {rank}"
        )
    alpha = _matched(config.get("alpha_pattern"), name, config.get("lora_alpha", 8))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _matched(patterns: dict[str, Any] | None, name: str, default: Any) -> Any:
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _remedy() -> str:
    return (
        "put the base's files into the adapter's folder, or write its folder to "
        f"base_model_name_or_path in {_CONFIG}"
    )


def _merged_by_peft() -> str:
    return "merge it with peft (merge_and_unload) and save_pretrained() the result"
