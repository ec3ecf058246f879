#!/usr/bin/env bash
# In transformers 5 the experts of a mixture are no nn.Linear: pruning "all linear layers" reaches 1 to 4 % of it.
#
# One would guess: every matrix of a decoder is the weight of an nn.Linear, so a loop over nn.Linear modules (the
# usual way to prune, to mask, to measure magnitudes or to count what can be quantized) covers nearly all weights.
# It did in transformers 4, where each expert was a module with three nn.Linear.
#
# What happens: transformers 5 keeps the experts of a layer as two parameters of three dimensions, without a module
# each. Of Mixtral, Qwen3-MoE and gpt-oss 1.3 to 3.5 % of the matrix weights are in nn.Linear. The axes differ, too:
# Mixtral and Qwen3-MoE store (expert, out, in), gpt-oss (expert, in, out), so a mean or norm "per output" over one
# and the same axis is right in one family and wrong in the other.
#
# Who is hurt: who prunes such a model to half of its weights by a loop over nn.Linear prunes 1 to 2 %, and who
# compares capacities or sparsities across models compares different things. No error, no warning.
#
# How to live with it: loop over parameters of three dimensions whose module is named *Experts, treat each slice
# parameter[expert] as a matrix, and check the share of weights that was reached against model.num_parameters().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet "transformers==5.24.0" "torch==2.14.1"
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import torch
import transformers
from torch import nn

print("transformers", transformers.__version__, "torch", torch.__version__)
shares = {}
for family in ("Mixtral", "Qwen3Moe", "GptOss"):
    config = getattr(transformers, f"{family}Config")()
    with torch.device("meta"):  # the published sizes, without their memory
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    matrices = sum(weight.numel() for weight in model.parameters() if weight.dim() > 1)
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    fused = model.model.layers[0].mlp.experts.gate_up_proj
    shares[family] = linear / matrices
    print(
        f"{family:9} {matrices / 1e9:6.1f} G weights in matrices, {shares[family]:.1%} of them in nn.Linear; "
        f"gate_up_proj {tuple(fused.shape)}, hidden size {config.hidden_size}"
    )
    hidden_axis = {"Mixtral": 2, "Qwen3Moe": 2, "GptOss": 1}[family]
    assert fused.shape[hidden_axis] == config.hidden_size, "the layout has changed"
assert max(shares.values()) < 0.04, "the behaviour has changed"
PYTHON
