#!/usr/bin/env bash
# torch.compile with frozen weights turns NaN into 0 on a CPU where a ReLU follows a convolution.
#
# One would guess: freezing folds constants and changes the last bits at most, so an image with a NaN pixel comes out
# as NaN, as it does without compiling (ReLU of NaN is NaN), and is noticed by `isfinite` on the outputs.
#
# What happens: convolution (and in bfloat16 a linear layer too) and ReLU or ReLU6 become one oneDNN operator, whose
# ReLU maps NaN to 0. The outputs of the row are finite and look like any others. SiLU keeps NaN.
#
# Who is hurt: who scores, filters or evaluates data with a frozen compiled network and relies on NaN to find bad
# rows, and who compares such a network with a plain loop and finds fewer bad rows in one of them.
#
# How to live with it: check the inputs for NaN, not the outputs; or check the outputs of a plain forward.
#
# Needs a C++ compiler, as torch.compile on a CPU does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet "torch==2.14.1" "numpy==2.4.6"
cd "$folder"
CUDA_VISIBLE_DEVICES="" TORCHINDUCTOR_CACHE_DIR="$folder/cache" "$folder/env/bin/python" - <<'PYTHON'
import torch
from torch import nn

torch._inductor.config.freezing = True
torch.manual_seed(0)
print("torch", torch.__version__)


def rows_with_nan(outputs):
    return outputs.isnan().flatten(1).any(1).tolist()


def compare(network, inputs):
    inputs[0].view(-1)[5] = float("nan")
    torch._dynamo.reset()
    with torch.no_grad():
        return rows_with_nan(network(inputs)), rows_with_nan(torch.compile(network)(inputs))


expected = {
    "convolution + ReLU, float32": ([True, False], [False, False]),
    "convolution + ReLU6, float32": ([True, False], [False, False]),
    "convolution + SiLU, float32": ([True, False], [True, False]),
    "convolution + ReLU, bfloat16": ([True, False], [False, False]),
    "linear + ReLU, bfloat16": ([True, False], [False, False]),
}
found = {}
for name in expected:
    layer, _, rest = name.partition(" + ")
    activation, _, dtype = rest.partition(", ")
    inputs = torch.randn(2, 3, 16, 16) if layer == "convolution" else torch.randn(2, 16)
    first = nn.Conv2d(3, 8, 3, padding=1) if layer == "convolution" else nn.Linear(16, 8)
    network = nn.Sequential(first, getattr(nn, activation)()).eval()
    found[name] = compare(network.to(getattr(torch, dtype)), inputs.to(getattr(torch, dtype)))
    print(f"{name}: rows with NaN: plain {found[name][0]}, compiled and frozen {found[name][1]}")
assert found == expected, "the behaviour has changed"
print("as described: the compiled network hides the bad row")
PYTHON
