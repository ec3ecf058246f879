#!/usr/bin/env bash
# transformers 5 loads FP8 weights with block scales wrong where a dimension is no multiple of the block.
#
# One would guess: a checkpoint with `weight_block_size: [32, 32]` is dequantized by blocks of 32 x 32, the last
# blocks of a row or column being smaller where the size is not a multiple of 32, as its scales were made.
#
# What happens: where no GPU is at hand the model is dequantized while loading, with blocks whose size is the size
# of the weight divided by the number of scales. 48 rows with two scales become blocks of 24 and 24 instead of 32
# and 16: every row from the 25th to the 32nd gets the scale of the wrong block. The load ends without a warning
# about it. (If the division leaves a remainder there is an error.)
#
# Who is hurt: who loads such a checkpoint on a CPU to prune, mask, merge, score or compare it: magnitudes in the
# rows between the two borders are off by the ratio of neighboring scales.
#
# How to live with it: check that both dimensions of every weight are multiples of the block, or multiply codes and
# scales yourself (repeat the scales by the block size, cut to the shape of the weight) and load the plain state dict.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet "transformers==5.24.0" "torch==2.14.1" "accelerate==1.15.0" "safetensors==0.8.0"
cd "$folder"
CUDA_VISIBLE_DEVICES="" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 "$folder/env/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

BLOCK = 32


def quantized(weight):
    """Return float8 weights and a scale per block of 32 x 32, the last blocks being smaller."""
    rows, columns = -(-weight.shape[0] // BLOCK), -(-weight.shape[1] // BLOCK)
    scales, codes = torch.empty(rows, columns), torch.empty_like(weight)
    for i in range(rows):
        for j in range(columns):
            block = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            scales[i, j] = weight[block].abs().max() / 448 * (1 + i)
            codes[block] = weight[block] / scales[i, j]
    return codes.to(torch.float8_e4m3fn), scales


def scaled(codes, scales):
    each = scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return codes.float() * each[: codes.shape[0], : codes.shape[1]]



print("transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
for hidden in (64, 48):
    folder = Path(f"model{hidden}")
    config = LlamaConfig(
        vocab_size=64, hidden_size=hidden, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    stored, right = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = weight
        if "_proj." in name:
            stored[name], stored[f"{name}_scale_inv"] = quantized(weight)
            right[name] = scaled(stored[name], stored[f"{name}_scale_inv"])
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    described = json.loads((folder / "config.json").read_text())
    described["quantization_config"] = {
        "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic",
    }
    (folder / "config.json").write_text(json.dumps(described))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    name = "model.layers.0.self_attn.o_proj.weight"
    found = loaded.get_parameter(name)
    off = ((found - right[name]).abs() > 1e-6 * right[name].abs().max()).float().mean().item()
    print(f"o_proj {tuple(found.shape)} {found.dtype}: {off:.0%} of the weights are not the stored ones")
    assert (off == 0) == (hidden % BLOCK == 0), "the behaviour has changed"
PYTHON
