"""The state dict of a network: read from what training scripts save, and loaded if it fits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import torch

from lc_engine.models.checkpoint import check_state, read_file, read_folder, read_shards
from lc_engine.models.scaled import dequantized, is_scaled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

_LOGGER = logging.getLogger("lc_engine")

# Where training scripts put the weights in what they save. The average of the weights over the
# training comes first, as in timm's own loader.
_AVERAGES: Final = ("state_dict_ema", "model_ema")
_WRAPPERS: Final = (*_AVERAGES, "state_dict", "model", "model_state_dict")
# What DistributedDataParallel and torch.compile put before every name, in either order.
_WRAPPING: Final = ("_orig_mod.", "module.", "_orig_mod.")
_COUNTER: Final = "num_batches_tracked"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a state dict; nothing in it is executed.

    What training scripts put around it is taken off: "state_dict_ema", which is preferred to a
    "state_dict" beside it; "state_dict", "model"; and the "module." and "_orig_mod." before names.
    Weights in float8 are multiplied by their scales, if there are any, and returned in float32.

    Args:
        path: a `.safetensors` file, or one that `torch.load(weights_only=True)` reads; the index
            of shards (`.index.json`); or a folder with either.

    Raises:
        FileNotFoundError: there is no such file, or a shard is missing.
        ValueError: it is no checkpoint, is damaged, or holds more than tensors.
    """
    if path.is_dir():
        state: Any = read_folder(path)
    elif path.name.endswith(".index.json") and path.is_file():
        state = read_shards(path)
    else:
        state = read_file(path)
    for wrapper in _WRAPPERS:
        if not (isinstance(state, dict) and isinstance(state.get(wrapper), dict)):
            continue
        if wrapper in _AVERAGES:
            _LOGGER.info(
                f'checkpoint {path}: "{wrapper}", the average of the weights, is taken, as timm\'s '
                "loader does; save another state dict by itself to use that one"
            )
        state = state[wrapper]
    named = {_unwrapped(name): value for name, value in check_state(path, state).items()}
    return dequantized(named, torch.float32, None, str(path)) if is_scaled(named) else named


def without_prefix(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Take a prefix such as "model." or "net." off the names, if they are a network's with it.

    Args:
        state: of the checkpoint.
        own: of the network.
        source: of the checkpoint, for errors.

    Raises:
        ValueError: with the prefix there is more than the network; the text names both.
    """
    first = next(iter(own), "")
    for prefix in [name.removesuffix(first) for name in state if name.endswith("." + first)]:
        needed = {prefix + name for name in own if not name.endswith(_COUNTER)}
        if needed <= state.keys() and not state.keys() & own.keys():
            more = [name for name in state if not name.startswith(prefix)]
            if more:
                raise ValueError(
                    f'checkpoint {source}: the network\'s names begin with "{prefix}", and beside '
                    f"them are {len(more)} others, such as {more[0]}: save the state_dict() of the "
                    "network alone"
                )
            _LOGGER.info(f'checkpoint {source}: the prefix "{prefix}" is taken off every name')
            return {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that must fit exactly, but for a prefix that all names have.

    Raises:
        ValueError: naming the keys that are missing, unknown or of another shape.
    """
    own = model.state_dict()
    state = without_prefix(state, own, source)
    # Older checkpoints lack this counter, which evaluation never reads.
    missing = [n for n in own if n not in state and not n.endswith(_COUNTER)]
    unknown = [name for name in state if name not in own]
    reshaped = [
        f"{name} {tuple(value.shape)} where the model has {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    complaints = [
        f"{what} {len(keys)}: {', '.join(keys[:3])}{' …' if len(keys) > 3 else ''}"
        for what, keys in (("missing", missing), ("unknown", unknown), ("other shape", reshaped))
        if keys
    ]
    if complaints:
        raise ValueError(
            f"checkpoint {source} does not fit {type(model).__name__} ({len(own)} keys): "
            + "; ".join(complaints)
        )
    model.load_state_dict(state, strict=False)


def _unwrapped(name: str) -> str:
    for prefix in _WRAPPING:
        name = name.removeprefix(prefix)
    return name
