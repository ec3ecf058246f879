"""Run what surrounds the products of a decoder through the operators, on a CPU.

Three kinds of layers are known by what they compute, not by their class: causal attention, RMS
norms and gated activations with SiLU, as in Llama, Mistral, Qwen, SmolLM and Gemma (its norms and
attention). Whatever else a decoder calls runs as `transformers` runs it, and so does attention in a
dtype in which torch's is faster.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lc_engine import ops
from lc_engine.backbone import tuning
from lc_engine.backbone.passes.cpu_attention import FastAttention
from lc_engine.backbone.recognize import KERNEL_DTYPES, has_vectors
from lc_engine.models.state import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Layer = Callable[[Tensor], Tensor]

# Where classes keep ε.
_EPS: Final = ("variance_epsilon", "eps")
_GATED: Final = ("gate_proj", "up_proj", "down_proj")
# Inputs of this size make ε as large as their mean square.
_SMALL: Final = 1e-3
_PROBE_TOKENS: Final = 2


class FastLayers:
    """The layers of a model that the operators compute.

    Args:
        model: a causal language model in one dtype, on its device. Nothing is replaced until
            `in_use`.
    """

    def __init__(self, model: nn.Module) -> None:
        parameter = next(model.parameters())
        self._supported = (
            parameter.device.type == "cpu" and parameter.dtype in KERNEL_DTYPES and has_vectors()
        )
        own = parameter.dtype in tuning.OWN_DTYPES[tuning.kind()]
        self._attention: Callable[[], AbstractContextManager[Any]] = (
            FastAttention if own else nullcontext
        )
        self._forwards: dict[nn.Module, Layer] = {}
        if not self._supported:
            return
        with evaluating(model), torch.inference_mode():
            for module in model.modules():
                if "forward" in vars(module):
                    continue  # put there by a user, whom it would escape
                found = _rms_norm_of(module) or _gated_of(module)
                if found is not None:
                    self._forwards[module] = found

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run the model's layers through the operators; its modules are restored."""
        if not self._supported:
            yield
            return
        try:
            for module, forward in self._forwards.items():
                module.forward = forward
            with self._attention():
                yield
        finally:
            for module in self._forwards:
                module.__dict__.pop("forward", None)


def _rms_norm_of(module: nn.Module) -> Layer | None:
    """Return the forward of an RMS norm; None if a module computes something else."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    eps = next((getattr(module, name) for name in _EPS if hasattr(module, name)), None)
    if [name for name, _ in tensors] != ["weight"] or not isinstance(eps, float):
        return None
    weight = tensors[0][1]
    if weight.dim() != 1 or weight.dtype not in KERNEL_DTYPES:
        return None
    for offset in (0.0, 1.0):  # Gemma's weight is what is added to 1

        def norm(x: Tensor, offset: float = offset) -> Tensor:
            scale: Any = module.weight
            return ops.rms_norm(x, scale.float() + offset if offset else scale, eps)

        if _computes(module, norm, len(weight), weight.dtype):
            return _where_it_fits(module, norm, weight.dtype)
    return None


def _gated_of(module: nn.Module) -> Layer | None:
    """Return the forward of a gated feed-forward block with SiLU; None for any other module."""
    parts = dict(module.named_children())
    if not set(_GATED) <= set(parts) or any(
        type(parts[name]).forward is not nn.Linear.forward for name in _GATED
    ):
        return None
    gate, up, down = (parts[name] for name in _GATED)

    def plain(x: Tensor) -> Tensor:
        out: Tensor = down(F.silu(gate(x)) * up(x))
        return out

    def block(x: Tensor) -> Tensor:
        out: Tensor = down(ops.gated_silu(gate(x), up(x)))
        return out

    weight: Any = gate.weight
    if weight.dtype not in KERNEL_DTYPES or not _computes(
        module, plain, weight.shape[1], weight.dtype
    ):
        return None
    return _where_it_fits(module, block, weight.dtype)


def _computes(module: nn.Module, layer: Layer, dims: int, dtype: torch.dtype) -> bool:
    """Return whether a module computes what a layer does, on small and on large inputs."""
    drawn = torch.randn(1, _PROBE_TOKENS, dims, generator=torch.Generator().manual_seed(0))
    for size in (1.0, _SMALL):
        x = (drawn * size).to(dtype)
        try:
            own = module(x)
        except Exception:  # another module's forward may raise anything at such inputs
            return False
        if not isinstance(own, Tensor) or own.shape != x.shape or own.dtype != dtype:
            return False
        tolerance = 4 * torch.finfo(dtype).eps * own.float().abs().max()
        if not bool((own.float() - layer(x).float()).abs().max() <= tolerance):
            return False
    return True


def _where_it_fits(module: nn.Module, layer: Layer, dtype: torch.dtype) -> Layer:
    """Return a layer that leaves to the module what the operators do not take."""
    own = module.forward

    def forward(x: Tensor) -> Tensor:
        fits = type(x) is Tensor and x.dtype == dtype and not torch.is_grad_enabled()
        return layer(x) if fits and x.numel() else own(x)

    return forward
