"""Constants measured on two kinds of processors, each with the command that measures it again.

- "vectors": 2 cores of an AMD EPYC (Zen 4) with AVX512-BF16 and AVX512-VNNI, without AMX.
- "tiles": 2 cores of an Intel Xeon with AMX, where oneDNN multiplies bfloat16 five times as fast,
  and the C++ core, which has vectors only, no faster than float32.

A number without a kind was measured on "vectors". The command

    python -m benchmarks.backbone.tune NAME VALUE … --model NAME --dtype DTYPE

(below: tune) times whole runs with each value in turns, and prints their ratios to the value here.
An entry of a table is named with dots, such as SPARSE_BELOW.vectors.winograd.bfloat16.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from lc_engine.ops.processor import cpu_features

Kind = Literal["vectors", "tiles"]


def kind() -> Kind:
    """Return the kind of this processor."""
    return "tiles" if cpu_features().amx_bf16 else "vectors"


# Images of 224 × 224 pixels per forward on a CPU: more overflow the caches, fewer cost calls.
# tune IMAGES_OF_CONVOLUTIONS 8 12 32 --model resnet18
IMAGES_OF_CONVOLUTIONS = 16
# Bytes of the largest map of such a forward: glibc gives larger blocks back to the system, which
# clears their pages anew for every layer. tune MAP_BYTES 16000000 64000000 --dtype float32
MAP_BYTES = 32 << 20
# Tokens take less memory than pixels. tune IMAGES_OF_TOKENS 8 16 64 --model vit_tiny_patch16_224
IMAGES_OF_TOKENS = 32
# In int8 calls are a larger part of the time, and values between layers smaller.
# tune IMAGES_OF_TOKENS_INT8 32 64 256 --model vit_tiny_patch16_224 --dtype int8 --rows 256
IMAGES_OF_TOKENS_INT8 = 128
# Share of convolutions among masked modules above which a network counts as convolutional. Chosen:
# known networks are far from it.
CONVOLUTIONAL_SHARE = 0.25

# Dtypes of which Winograd's method and `ops.attention` multiply faster than oneDNN.
# pytest benchmarks/bench_winograd.py benchmarks/bench_attention.py --benchmark-only
OWN_DTYPES: dict[Kind, tuple[torch.dtype, ...]] = {
    "vectors": (torch.float32, torch.bfloat16),
    "tiles": (torch.float32,),
}
# Whether a layer in int8 is faster than oneDNN's in bfloat16, and the width up to which a whole
# transformer block is (with tiles 192 is, 768 is not). pytest benchmarks/bench_int8_linear.py
# benchmarks/bench_int8_convolution.py benchmarks/bench_transformer_block.py --benchmark-only
INT8_LAYERS: dict[Kind, bool] = {"vectors": True, "tiles": False}
INT8_BLOCK_WIDTH: dict[Kind, float] = {"vectors": math.inf, "tiles": 192}
# Density below which a sparse kernel is faster than each dense one. Per layer:
# pytest benchmarks/bench_sparse_layer.py benchmarks/bench_winograd.py --benchmark-only
# tune SPARSE_BELOW.vectors.packed.bfloat16 0.3 0.8 --lowest 0.02
SPARSE_BELOW: dict[Kind, dict[str, dict[str, float]]] = {
    "vectors": {
        "dense": {"float32": 0.7, "bfloat16": 0.55},
        "packed": {"float32": 0.7, "bfloat16": 0.55},
        "winograd": {"float32": 0.42, "bfloat16": 0.33},
        "int8": {"float32": 0.25, "bfloat16": 0.3},
        "int8_winograd": {"float32": 0.15, "bfloat16": 0.2},
    },
    "tiles": {
        "dense": {"float32": 0.5, "bfloat16": 0.0},
        "packed": {"float32": 0.5, "bfloat16": 0.0},
        "winograd": {"float32": 0.42, "bfloat16": 0.0},
        "int8": {"float32": 0.25, "bfloat16": 0.0},
    },
}
# What 1 / inputs and 1 / outputs take off that density: gathering inputs and writing outputs cost
# the same at any density. tune SPARSE_OVERHEAD 4 16 --lowest 0.02
SPARSE_OVERHEAD = 8.0
# Input channels that fill the vectors of a sparse convolution. tune SPARSE_CHANNELS 8 32 --lowest
# 0.02
SPARSE_CHANNELS = 16

# Channels, and tiles of 2 × 2 outputs, from which Winograd's products save more than its transforms
# cost. tune WINOGRAD_CHANNELS 16 64 --model resnet18; tune WINOGRAD_TILES 16 256 --model resnet18
WINOGRAD_CHANNELS = 32
WINOGRAD_TILES = 64
# Rows (tokens or pixels) from which packing or quantizing a weight pays. tune PACKED_ROWS 64 1024
PACKED_ROWS = 256
# Outputs per input from which checking inputs of a convolution that ReLU6 follows is cheaper than
# another pass over its outputs. tune CHECKED_OUTPUTS 1 4 100
CHECKED_OUTPUTS = 2.0

# Max poolings of multiples of these channels leave no remainder, which torch pools faster.
# tune MAX_POOL_CHANNELS 8 32 --model resnet18
MAX_POOL_CHANNELS = 16

# Of texts, the most tokens of a part, and the tokens that take as long as the fixed cost of a
# forward; of the GPU those of `language.tuning`. python -m benchmarks.texts
TOKEN_BUDGET = {"cpu": 4096, "gpu": 16384}
FORWARD_COST = {"cpu": 64, "gpu": 2048}

# Rows times sub-models from which compiling a network pays on a GPU: of ResNet-18 it takes 8 s and
# saves 0.07 s of 0.197 s per 50 forwards over 128 images, on an H100. python -m
# benchmarks.gpu.backbone --model resnet18 times both
COMPILED_FORWARDS = 750_000

# Bounds on memory, chosen: outputs of the shared prefix, masked weights before they are cast, and
# CUDA graphs, each of which keeps the memory of its forwards.
PREFIX_BYTES = 256 << 20
STAGE_BYTES = 64 << 20
CUDA_GRAPHS = 4
