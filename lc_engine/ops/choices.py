"""Which products are torch's on a processor with AMX, by costs that were measured there.

Processor: 2 cores of an Intel Xeon with AMX, one thread, torch 2.14.1; the core's kernels as they
were before torch's products were chosen. The command that measures a constant again stands beside
it. Nothing here depends on a timing of the
moment, on the rows of a batch or on the threads: a score does not either.
"""

from __future__ import annotations

from typing import Final

import torch

from lc_engine.ops import contract
from lc_engine.ops.processor import cpu_features

# Picoseconds of a sub-model's logit as a dense product: per dim, from torch's 1.0 TFLOP/s in
# pytest benchmarks/bench_masked_linear.py, and to take it into a softmax, from the same kernel on a
# processor without AMX.
DENSE_DIM: Final = 2.0
DENSE_LOGIT: Final = 400.0
# The same for all sub-models together, sorted into shells: per dim, and per sub-model.
# pytest benchmarks/bench_linear_confidence.py -k bfloat16 --benchmark-only
SHELL_DIM: Final = 36.0
SHELL_LOGIT: Final = 180.0
# Classes and dims that fill AMX's tiles, chosen; below these no head was measured.
DENSE_CLASSES: Final = 64
DENSE_DIMS: Final = 64
# Bytes of the masked weights of all sub-models, chosen: more are not kept beside each other.
DENSE_BYTES: Final = 64 << 20


def multiplies_on_tiles(dtype: torch.dtype, device: torch.device, backend: str) -> bool:
    """Return whether torch's own product of CPU tensors is the faster one.

    Measured 2.9 × as fast as masked_linear's, 2.1 × as attention's and 1.6 × as token_nll's, with
    pytest benchmarks/bench_masked_linear.py benchmarks/bench_attention.py
    benchmarks/bench_token_nll.py --benchmark-only.
    """
    return (
        backend == "auto"
        and dtype == torch.bfloat16
        and device.type == "cpu"
        and contract.native() is not None
        and cpu_features().amx_bf16
    )


def head_is_dense(classes: int, dims: int, sub_models: int, kept: float) -> bool:
    """Return whether a head's sub-models are faster as dense products on tiles than as shells.

    Args:
        classes: of the head.
        dims: of the features.
        sub_models: of the path.
        kept: share of the weights that the densest sub-model keeps.
    """
    if classes < DENSE_CLASSES or dims < DENSE_DIMS:
        return False
    if 2 * sub_models * classes * dims > DENSE_BYTES:
        return False
    dense = sub_models * (dims * DENSE_DIM + DENSE_LOGIT)
    return dense < kept * dims * SHELL_DIM + sub_models * SHELL_LOGIT
