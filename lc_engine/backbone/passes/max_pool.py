"""Max poolings of a working copy: through `ops.max_pool`, with the ReLU before them after them.

The largest of numbers whose negative ones became 0 is the largest of the numbers, or 0: there are
fewer to look at after the pooling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lc_engine import ops
from lc_engine.ops import contract

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from lc_engine.ops.pixels import Pair

_DTYPES = (torch.float32, torch.bfloat16)
# Channels that no vector is left over for; others are faster in torch.
_CHANNELS = 16


def poolings(model: nn.Module) -> list[nn.Module]:
    """List the modules of a model that `fasten` takes."""
    core = contract.native()
    # The baseline, without vectors of its own for bfloat16, was not measured.
    if core is None or core.cpu_isa() == "baseline":
        return []
    return [module for module in model.modules() if _fits(module)]


def fasten(modules: Sequence[nn.Module], with_relu: Collection[nn.Module] = ()) -> None:
    """Change the forward of poolings, for good.

    Args:
        modules: as `poolings` gives them.
        with_relu: those that make 0 of what is negative.
    """
    for module in modules:
        module.forward = _choosing(module, module.forward, module in with_relu)


def _fits(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.MaxPool2d)
        and type(module).forward is nn.MaxPool2d.forward
        and _pair(module.dilation) == (1, 1)
        and not module.ceil_mode
        and not module.return_indices
    )


def _choosing(module: Any, torchs: Callable[[Tensor], Tensor], relu: bool) -> Callable[..., Tensor]:
    window = tuple(_pair(size) for size in (module.kernel_size, module.stride, module.padding))

    def forward(input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        if (
            input.dim() == 4
            and input.device.type == "cpu"
            and input.dtype in _DTYPES
            and input.shape[1] % _CHANNELS == 0
            and input.is_contiguous(memory_format=torch.channels_last)
        ):
            return ops.max_pool(input, *window, relu=relu)
        found = torchs(input)
        return found.relu_() if relu else found

    return forward


def _pair(size: int | Sequence[int]) -> Pair:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
