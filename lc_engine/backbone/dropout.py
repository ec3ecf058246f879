"""Dropout as a family of sub-models: injected into a model that ships with none.

    sub-model k: x_i ↦ x_i [u_i ≥ ρ_k] / (1 − ρ_k)  before each layer, ρ_k = 1 − r_k

(arXiv 2402.05356 v1, section 4, rates of 10 % to 90 %). The uniform numbers u_i are Philox numbers
of the layer and the index in the input, not of the sample: a sub-model is one network, the same for
all samples, so a row has the same score in any batch; and an input dropped at one rate is dropped
at all higher ones, like a nested mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from lc_engine.ops import philox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


class InjectedDropout:
    """Drops inputs of given modules, at a rate that can be changed.

    Args:
        modules: whose inputs are dropped; module i draws from Philox stream i.
        seed: 64 bits.

    Attributes:
        rate: ρ, the share that is dropped; 0 leaves the model as it is.
    """

    def __init__(self, modules: Sequence[nn.Module], seed: int) -> None:
        self.rate = 0.0
        self._seed = seed
        self._uniform: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        for stream, module in enumerate(modules):
            module.register_forward_pre_hook(self._hook(stream))

    def _hook(self, stream: int) -> Any:
        def drop(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if self.rate == 0:
                return None
            return tuple(
                self._dropped(value, stream)
                if isinstance(value, Tensor) and value.is_floating_point()
                else value
                for value in args
            )

        return drop

    def _dropped(self, value: Tensor, stream: int) -> Tensor:
        shape = tuple(value.shape[1:])
        drawn = self._uniform.get((stream, shape))
        if drawn is None:
            drawn = philox.uniform(shape, self._seed, stream, value.device)
            self._uniform[stream, shape] = drawn
        scale = 1.0 / (1.0 - self.rate) if self.rate < 1 else 0.0
        return value * ((drawn >= self.rate).to(value.dtype) * scale)
