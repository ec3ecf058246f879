#!/usr/bin/env bash
# A GGUF file of Llama 3.1 or later, loaded by transformers, has the wrong rotary frequencies.
#
# One would guess: from_pretrained(..., gguf_file=...) gives the model that was converted, but for the rounding of its
# weights. A tensor that the loader does not know is in the report of loading, as "unexpected".
#
# What happens: the converters of llama.cpp store the "llama3" scaling of rotary frequencies as a tensor,
# rope_freqs.weight (head_dim / 2 divisors), and write no key rope.scaling.*. transformers reads neither a scaling nor
# the tensor: the configuration that it makes says "default", all keys match, and low frequencies are up to 8 times too
# high (up to 32 times in the small models of Llama 3.2). Weights are exact. Here, with random weights in float32, the
# logits of the first token agree and those of later positions do not.
#
# Who is hurt: who evaluates, scores or fine-tunes from a GGUF and reads long texts. Perplexity on short ones looks
# fine, so the loss is put down to quantization.
#
# How to live with it: take the safetensors; or divide model.model.rotary_emb.inv_freq and original_inv_freq by the
# tensor after loading, as llama.cpp does. This script ends by showing that this gives the original's logits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet "transformers==5.24.0" "torch==2.14.1" "gguf==0.19.0" "accelerate==1.4.0"
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import gguf
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

print("transformers", transformers.__version__, "gguf", "0.19.0")
HEADS, WIDTH = 4, 256
scaling = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64, "rope_theta": 10000.0,
}
config = transformers.LlamaConfig(
    vocab_size=64, hidden_size=WIDTH, intermediate_size=256, num_hidden_layers=2, num_attention_heads=HEADS,
    num_key_value_heads=HEADS, max_position_embeddings=512, rope_parameters=scaling, tie_word_embeddings=False,
)
torch.manual_seed(0)
original = transformers.LlamaForCausalLM(config).eval()
for p in original.parameters():  # so that positions matter to the logits
    if p.ndim == 2:
        torch.nn.init.normal_(p, std=0.08)
plain = 10000.0 ** -(torch.arange(0, WIDTH // HEADS, 2).float() / (WIDTH // HEADS))
factors = plain / ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0]
print(f"factors from {factors.min():.0f} to {factors.max():.0f}")


def interleaved(w):  # the order of rows in which llama.cpp rotates
    return w.reshape(HEADS, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


writer = gguf.GGUFWriter("model.gguf", "llama")
writer.add_context_length(512)
writer.add_embedding_length(WIDTH)
writer.add_block_count(2)
writer.add_feed_forward_length(256)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_rope_dimension_count(WIDTH // HEADS)
writer.add_rope_freq_base(10000.0)
writer.add_layer_norm_rms_eps(config.rms_norm_eps)
writer.add_vocab_size(64)
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
for key, value in original.state_dict().items():
    value = interleaved(value) if "q_proj" in key or "k_proj" in key else value
    writer.add_tensor(names.get_name(key, try_suffixes=(".weight",)), value.contiguous().numpy())
writer.add_tensor("rope_freqs.weight", factors.numpy())
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
    ".", gguf_file="model.gguf", dtype=torch.float32, output_loading_info=True
)
loaded.eval()
print("loading report:", {name: list(keys) for name, keys in report.items()})
rotary = loaded.model.rotary_emb
ratio = rotary.inv_freq / original.model.rotary_emb.inv_freq
print(f"rotary type {rotary.rope_type!r}; frequencies {ratio.min():.0f} to {ratio.max():.0f} times the original's")
tokens = torch.randint(64, (1, 400), generator=torch.Generator().manual_seed(1))


def difference():
    with torch.no_grad():
        return (loaded(tokens).logits - original(tokens).logits).abs().amax(-1)[0]


before = difference()
print(f"largest difference of logits: first token {before[0]:.1e}, tokens 300 to 400 {before[300:].max():.2f}")
rotary.inv_freq.div_(factors)
rotary.original_inv_freq = rotary.inv_freq
after = difference().max()
print(f"after dividing by rope_freqs.weight: {after:.1e}")
assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
assert rotary.rope_type == "default" and ratio.max() > 7.9
assert before[0] < 1e-4 < 0.1 < before[300:].max() and after < 1e-3
print("as described")
PYTHON
