"""The C++ core. Private: lc_engine.ops checks the arguments, and its documentation holds here.

Arrays are C-contiguous, but for `attention`'s. Features are float32, or the bits of bfloat16 as
uint16. `run` writes log p (sub-models, samples), releases the GIL and may be called from several
threads.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

_Float32: TypeAlias = NDArray[np.float32]
_Labels: TypeAlias = NDArray[np.int64]

def isas() -> list[str]:
    """Return the instruction sets of this build that the processor has, the best one last.

    Of baseline, avx2, avx512 and avx512_bf16.
    """

def cpu_isa() -> str:
    """Return the instruction set of new plans and calls.

    The best one, or what LC_ENGINE_ISA names. A plan keeps the one that it was made with.

    Raises:
        RuntimeError: LC_ENGINE_ISA names none of `isas`.
    """

def set_isa(name: str) -> str:
    """Change the instruction set of new plans and calls in all threads; return the one before.

    Raises:
        ValueError: `name` is none of `isas`.
    """

def apply_thresholds(
    pristine: Sequence[NDArray[Any]],
    live: Sequence[NDArray[Any]],
    thresholds: Sequence[float],
    saliency: Sequence[_Float32],
    seed: int | None,
    threads: int,
) -> None: ...
def attention(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    scale: float,
    out: NDArray[Any],
    threads: int,
    causal: bool = False,
) -> None:
    """Read and write (batches, heads, tokens, dims) of any strides but for the dims."""

def take_logits(
    logits: NDArray[np.uint16],
    lost: NDArray[np.uint16] | None,
    bias: _Float32 | None,
    labels: _Labels | None,
    first: int,
    largest: _Float32,
    total: _Float32,
    moment: _Float32 | None,
    chosen: _Float32,
    threads: int,
) -> None:
    """Take a tile of bfloat16 logits (rows, classes), the first of class `first`, into softmaxes.

    The last four arrays are (rows,) states, in base 2 and overwritten; see csrc/logits/kernel.h.
    """

def count_kept(weight: NDArray[Any], threads: int) -> int: ...
def gated_silu(gate: NDArray[Any], up: NDArray[Any], out: NDArray[Any], threads: int) -> None: ...
def masked_linear(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: _Float32 | None,
    thresholds: _Float32,
    saliency: _Float32 | None,
    seed: int | None,
    activation: str | None,
    out: NDArray[Any],
    threads: int,
) -> None: ...
def max_pool(
    x: NDArray[Any],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    relu: bool,
    out: NDArray[Any],
    threads: int,
) -> None: ...
def rms_norm(
    x: NDArray[Any], weight: _Float32, eps: float, out: NDArray[Any], threads: int
) -> None: ...
def token_nll(
    hidden: NDArray[Any],
    vocab_weight: NDArray[Any],
    bias: _Float32 | None,
    targets: _Labels,
    thresholds: _Float32 | None,
    saliency: _Float32 | None,
    seed: int | None,
    nll: _Float32,
    entropy: _Float32 | None,
    threads: int,
) -> None: ...
def multiplies_int8() -> bool:
    """Return whether new plans multiply four pairs of int8 at a time (AVX512-VNNI)."""

@final
class DepthwisePlan:
    def __init__(
        self,
        weight: _Float32,
        bias: _Float32 | None,
        stride: tuple[int, int],
        dilation: tuple[int, int],
        activation: str | None,
    ) -> None: ...
    def run(
        self, x: NDArray[Any], padding: tuple[int, int], out: NDArray[Any], threads: int
    ) -> None: ...

@final
class Int8ConvolutionPlan:
    def __init__(
        self,
        weight: NDArray[Any],
        bias: _Float32 | None,
        kernel_width: int,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        activation: str | None,
        threads: int,
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any], threads: int) -> None: ...

@final
class Int8LinearPlan:
    def __init__(
        self,
        weights: Sequence[NDArray[Any]],
        biases: Sequence[_Float32 | None],
        activations: Sequence[str | None],
        norm_weight: _Float32 | None,
        norm_bias: _Float32 | None,
        epsilon: float,
        threads: int,
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any], threads: int) -> None: ...

@final
class LinearPlan:
    def __init__(
        self,
        weight: _Float32,
        bias: _Float32 | None,
        saliency: _Float32 | None,
        thresholds: _Float32,
        bfloat16: bool,
    ) -> None:
        """`bfloat16`: weight and the features to come are bfloat16 numbers, which saves half."""
    def run(
        self, features: NDArray[Any], labels: _Labels | None, log_probs: _Float32, threads: int
    ) -> None: ...

@final
class MLPPlan:
    def __init__(
        self,
        weights: Sequence[_Float32],
        biases: Sequence[_Float32 | None],
        saliency: Sequence[_Float32] | None,
        thresholds: _Float32,
        activation: str,
    ) -> None: ...
    def run(
        self, features: NDArray[Any], labels: _Labels | None, log_probs: _Float32, threads: int
    ) -> None: ...

@final
class PrototypePlan:
    def __init__(self, prototypes: _Float32, logit: str, temperature: float) -> None: ...
    def run(
        self, features: NDArray[Any], labels: _Labels | None, log_probs: _Float32, threads: int
    ) -> None: ...

@final
class SparseLayerPlan:
    def __init__(
        self,
        weight: NDArray[Any],
        bias: _Float32 | None,
        kernel_width: int,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        activation: str | None,
        threads: int,
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any], threads: int) -> None: ...

@final
class TransformerBlockPlan:
    def __init__(
        self,
        qkv: Int8LinearPlan,
        projection: Int8LinearPlan,
        mlp: Int8LinearPlan,
        heads: int,
        scale: float,
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any], threads: int) -> None: ...

@final
class WinogradPlan:
    def __init__(
        self,
        weight: NDArray[Any],
        bias: _Float32 | None,
        padding: tuple[int, int],
        activation: str | None,
        int8: bool,
        threads: int,
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any], threads: int) -> None: ...
