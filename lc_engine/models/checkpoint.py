"""Read the tensors of checkpoints: one file, or the shards of a folder; nothing in them is run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from lc_engine._util.extras import require
from lc_engine._util.json_file import read_json_object
from lc_engine._util.safetensors_header import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable

# The weights of a folder, the first of them that is there; an index names its shards.
_FOLDER_FILES: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_INDEX: Final = ".index.json"


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a folder as `save_pretrained` writes it: one file, or shards.

    Raises:
        FileNotFoundError: the folder has no weights, or lacks a shard.
        ValueError: a file is damaged, or lacks tensors that the index says it has.
    """
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return read_shards(folder / name) if name.endswith(_INDEX) else _state(folder / name)
    raise FileNotFoundError(f"{folder} has no weights: it needs one of {', '.join(_FOLDER_FILES)}")


def read_shards(index: Path) -> dict[str, Tensor]:
    """Read the shards that an index file names.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: the index or a shard is damaged, or they disagree.
    """
    files = read_json_object(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ValueError(f'{index} has no "weight_map" of tensors to files: it is no index')
    state: dict[str, Tensor] = {}
    for name in sorted(set(map(str, files.values()))):
        # A shard lies beside its index: no path leads out of the folder.
        if name != Path(name).name:
            raise ValueError(f"{index} names the file {name!r}, which is not in its folder")
        shard = _state(index.parent / name)
        twice = sorted(state.keys() & shard.keys())
        if twice:
            raise ValueError(f"{index}: {_some(twice)} in more than one shard, such as {name}")
        state |= shard
    lost = sorted(files.keys() - state.keys())
    if lost:
        raise ValueError(f"the shards of {index} lack {_some(lost)}: copy or download them again")
    return state


def read_file(path: Path) -> Any:
    """Read what a file holds: tensors by name, or whatever a training script saved with them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, is damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        read_header(path)
        safetensors = require("safetensors", "cli")
        try:
            return require("safetensors.torch", "cli").load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
    try:
        # Training scripts of timm put their options beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # bytes that are no checkpoint raise anything at all
        raise ValueError(
            f"{path} cannot be read as tensors only ({type(error).__name__}): it is damaged, or "
            "holds objects of Python, which could run code; save it with "
            "torch.save(model.state_dict(), …) or as safetensors"
        ) from None


def check_state(path: Path, state: Any) -> dict[str, Tensor]:
    """Return what was read, if it is a state dict.

    Raises:
        ValueError: it is not.
    """
    if not (isinstance(state, dict) and state) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ValueError(f"{path} must hold a state dict, names and tensors")
    return state


def _state(path: Path) -> dict[str, Tensor]:
    return check_state(path, read_file(path))


def _some(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
