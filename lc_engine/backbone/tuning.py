"""Constants measured on one processor, each with the command that measures it again.

The processor: 2 cores of an AMD EPYC (Zen 4) with AVX512-BF16 and AVX512-VNNI, without AMX. The
command times whole runs with each value in turns and prints their ratios to the value below:

    python -m benchmarks.backbone.tune NAME VALUE … [--model NAME] [--dtype DTYPE]

Entries of tables by dots, such as `SPARSE_BELOW.winograd.bfloat16`. Modules read these values when
a copy is made or its weights change.
"""

from __future__ import annotations

# Images of 224 × 224 pixels in one forward on a CPU. More leave the caches, fewer leave threads
# waiting. By convolutions, by transformers, and by transformers in int8, whose calls take longer
# beside their products: tune … 8 16 32 64 128 --model vit_tiny_patch16_224.
IMAGES_OF_CONVOLUTIONS = 16
IMAGES_OF_TOKENS = 32
IMAGES_OF_TOKENS_INT8 = 128
# Masked convolutions, as a share of masked modules, from which a network counts as convolutional.
# No network lies near it: not measured.
CONVOLUTIONAL_SHARE = 0.25

# Density below which a sparse kernel beats each dense one: tune SPARSE_BELOW.dense.float32 …
# --lowest 0.02; per layer, `pytest benchmarks/bench_sparse_layer.py --benchmark-only`.
SPARSE_BELOW: dict[str, dict[str, float]] = {
    "dense": {"float32": 0.7, "bfloat16": 0.55},
    "packed": {"float32": 0.7, "bfloat16": 0.55},
    "winograd": {"float32": 0.42, "bfloat16": 0.33},
    "int8": {"float32": 0.25, "bfloat16": 0.3},
    "int8_winograd": {"float32": 0.15, "bfloat16": 0.2},
}
# Gathering inputs and writing outputs costs the same at any density: what 1 / inputs and
# 1 / outputs take off `SPARSE_BELOW`. tune SPARSE_OVERHEAD 4 8 16 --lowest 0.02.
SPARSE_OVERHEAD = 8.0
# Input channels from which a convolution's sparse kernel fills vectors: tune … 8 16 32 --lowest
# 0.02 --model EfficientNet-Lite0.
SPARSE_CHANNELS = 16

# Below these channels, and tiles of 2 × 2 outputs, Winograd's transforms cost more than the
# products they save: tune … 16 32 64 --model resnet18, or `pytest benchmarks/bench_winograd.py`.
WINOGRAD_CHANNELS = 32
WINOGRAD_TILES = 64
# Rows (tokens or pixels) from which packing or quantizing a weight pays: tune … 64 256 1024.
PACKED_ROWS = 256

# Channels per vector of a max pooling, a rest is slower than torch: tune … 8 16 32 --model
# resnet18.
MAX_POOL_CHANNELS = 16

# Bounds on memory, chosen and not measured: outputs of the shared prefix, masked weights before
# they are cast, and CUDA graphs (each holds the memory of its forwards).
PREFIX_BYTES = 256 << 20
STAGE_BYTES = 64 << 20
CUDA_GRAPHS = 4
