"""The rewrites of a copy, one file each, in the order in which they are applied.

A pass changes a `ModelCopy` in place, its results only by rounding, and returns whether it changed
something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.backbone.passes import (
    cast,
    cpu_attention,
    fast_layers,
    fold_batch_norm,
    fuse_activations,
    fuse_mlp,
    max_pool,
    shared_prefix,
    transformer_blocks,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.backbone.model_copy import ModelCopy

# Those that leave plain torch modules, for a copy that is compiled.
COMPILED = ("cpu_attention", "fold_batch_norm", "cast")
PASSES: dict[str, Callable[[ModelCopy], bool]] = {
    # First: its forward is that of the model as it came, and names inputs that do not fit.
    "cpu_attention": cpu_attention.apply,
    # Before activations are fused: a norm stands between a convolution and its activation.
    "fold_batch_norm": fold_batch_norm.apply,
    "fuse_activations": fuse_activations.apply,
    # After fuse_activations, which leaves it the ReLU before a pooling.
    "max_pool": max_pool.apply,
    # After fuse_activations: between the two layers of an MLP there is no activation left.
    "fuse_mlp": fuse_mlp.apply,
    "transformer_blocks": transformer_blocks.apply,
    # After all passes that compare outputs, which they do in the model's own dtype.
    "cast": cast.apply,
    # After cast: kernels depend on dtype and layout. It applies what earlier passes found.
    "fast_layers": fast_layers.apply,
    # Last: it wraps the forwards that other passes replaced.
    "shared_prefix": shared_prefix.apply,
}
