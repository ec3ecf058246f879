"""A copy of a model while passes rewrite it, and what each pass leaves for those after it."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lc_engine.backbone.prefix_cache import PrefixCache
from lc_engine.backbone.trace import tensors_of
from lc_engine.models.classifier import Tap, call
from lc_engine.models.state import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from lc_engine.data.fields import Inputs


class Attention(NamedTuple):
    """A call of attention: over how many heads, and the scale of its scores."""

    heads: int
    scale: float


class Block(NamedTuple):
    """A block x → h + γ₂ mlp(h), h = x + γ₁ projection(attention(qkv(x))), norms before the layers.

    Attributes:
        module: that computes it from one tensor (N, T, D).
        norms: before queries, keys and values, and before the MLP.
        qkv: one layer that computes queries, keys and values, or three.
        projection: of the output of attention.
        mlp: two layers.
        scales: modules whose parameters γ₁ and γ₂ (D,) are (LayerScale, arXiv 2103.17239), or None.
        attention: between qkv and projection.
    """

    module: nn.Module
    norms: tuple[nn.LayerNorm, nn.LayerNorm]
    qkv: tuple[nn.Linear, ...]
    projection: nn.Linear
    mlp: tuple[nn.Linear, nn.Linear]
    scales: tuple[nn.Module | None, nn.Module | None]
    attention: Attention

    @property
    def layers(self) -> tuple[nn.Linear, ...]:
        """The linear layers."""
        return *self.qkv, self.projection, *self.mlp

    @property
    def gammas(self) -> list[Tensor | None]:
        """γ₁ and γ₂, None for ones."""
        return [None if scale is None else next(scale.parameters()) for scale in self.scales]


@dataclass(eq=False)
class ModelCopy:
    """A copy of a model while passes rewrite it, and what each pass leaves for those after it.

    Attributes:
        model: the copy, in evaluation mode.
        example: (N, …) a few inputs in the dtype of the model, on its device.
        masked: the modules whose weights differ between sub-models.
        layers: those of them that get kernels of their own (`recognize.has_kernel`).
        classifier: name of the module whose inputs and outputs stay what they are; None: no module.
        dtype: of weights and activations after all passes, where they are not int8.
        int8: whether layers may multiply in int8.
        dropout: whether inputs of masked modules are dropped: no two of them run in one call then.

        attention: context in which forwards run; set by cpu_attention.
        map_numel: numbers per image in the largest map (N, C, H, W) of a forward over the example;
            set by cpu_attention.
        factors: by name of a convolution's weight (E, …), the factor (E, 1, …) of the norm that
            was folded into it; set by fold_batch_norm.
        activations: by layer or max pooling, the activation that it applies to its output; set
            by fuse_activations.
        producers: by linear layer, the norm or linear layer whose work it does too; set by
            fuse_mlp.
        blocks: that may run in one call; set by transformer_blocks.
        kernels: by module, the kernel of its present weights; filled by fast_layers as modules
            run, to be cleared when weights change.
        prefix: outputs of modules that run before the first masked one.
    """

    model: nn.Module
    example: Inputs
    masked: Sequence[nn.Module] = ()
    layers: Sequence[nn.Module] = ()
    classifier: str | None = None
    dtype: torch.dtype = torch.float32
    int8: bool = False
    dropout: bool = False

    attention: Callable[[], AbstractContextManager[Any]] = nullcontext
    map_numel: int = 0
    factors: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[nn.Module, nn.Module] = field(default_factory=dict)
    producers: dict[nn.Module, nn.Module] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    kernels: dict[Any, Callable[..., Any]] = field(default_factory=dict)
    prefix: PrefixCache = field(default_factory=PrefixCache)

    def __post_init__(self) -> None:
        self.tap = Tap(self.model, self.classifier)
        # Before the forwards over the example, which may write to buffers.
        self.state = ModelState(self.model)

    def outputs(self) -> list[Tensor]:
        """Return the tensors in the output over the example, which a forward may not write to."""
        return tensors_of(call(self.model, self.example))


def copied(model: nn.Module) -> nn.Module:
    """Copy a model, for evaluation only.

    Raises:
        ValueError: it holds what cannot be copied.
    """
    try:
        # A forward outside of inference mode cannot write to tensors made in it.
        with torch.inference_mode(False):
            twin = copy.deepcopy(model)
    except Exception as error:  # copying runs any code
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}), and its "
            "sub-models run in a copy: remove what is neither tensor nor module from it"
        ) from error
    return twin.eval().requires_grad_(False)
