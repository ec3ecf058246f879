"""Tiny GGUF files of real architectures, with the vocabulary of the tiny language model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import gguf
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaForCausalLM

from helpers import tiny_language_model as tiny

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

# The types that gguf-py quantizes to; K and I types it only reads.
QUANTIZED = ("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")

_LLAMA = {
    r"^model\.embed_tokens\.": "token_embd.",
    r"^model\.norm\.": "output_norm.",
    r"^lm_head\.": "output.",
    r"^model\.layers\.": "blk.",
    r"\.self_attn\.([qkv])_proj\.": r".attn_\1.",
    r"\.self_attn\.o_proj\.": ".attn_output.",
    r"\.mlp\.(gate|up|down)_proj\.": r".ffn_\1.",
    r"\.input_layernorm\.": ".attn_norm.",
    r"\.post_attention_layernorm\.": ".ffn_norm.",
}
_LFM2 = {
    r"^model\.embed_tokens\.": "token_embd.",
    r"^model\.embedding_norm\.": "token_embd_norm.",
    r"^model\.layers\.": "blk.",
    r"\.operator_norm\.": ".attn_norm.",
    r"\.self_attn\.([qkv])_proj\.": r".attn_\1.",
    r"\.self_attn\.out_proj\.": ".attn_output.",
    r"\.self_attn\.([qk])_layernorm\.": r".attn_\1_norm.",
    r"\.feed_forward\.w1\.": ".ffn_gate.",
    r"\.feed_forward\.w3\.": ".ffn_up.",
    r"\.feed_forward\.w2\.": ".ffn_down.",
    r"\.conv\.(in_proj|out_proj|conv)\.": r".shortconv.\1.",
}


def llama() -> LlamaForCausalLM:
    """A Llama whose rows are a multiple of every block: 256 weights."""
    return tiny.model(hidden_size=256, intermediate_size=256, num_hidden_layers=1)


def lfm2() -> Lfm2ForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Lfm2Config(
            vocab_size=270,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            layer_types=["conv", "full_attention"],
            block_auto_adjust_ff_dim=False,
            max_position_embeddings=256,
            initializer_range=0.2,
        )
        return Lfm2ForCausalLM(config).eval()


def write(path: Path, model, kind: str, **more: np.ndarray) -> Path:
    """Write a model of `llama` or `lfm2`; its matrices are quantized, the rest is float32.

    Args:
        path: the file.
        model: made by a function of this module, or by `tiny.model`.
        kind: "F32", "F16" or one of `QUANTIZED`.
        **more: further float32 tensors by name, without ".weight".
    """
    config = model.config
    architecture = {"llama": "llama", "lfm2": "lfm2"}[config.model_type]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    heads = config.num_key_value_heads
    if architecture == "lfm2":
        writer.add_shortconv_l_cache(config.conv_L_cache)
        full = [layer == "full_attention" for layer in config.layer_types]
        writer.add_head_count_kv([heads * attends for attends in full])
    else:
        writer.add_head_count_kv(heads)
    _add_tokenizer(writer, config.vocab_size)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = value.float().numpy()
        if architecture == "llama" and re.search(r"\.[qk]_proj\.", name):
            array = _interleaved(array, config.num_attention_heads if ".q_" in name else heads)
        for pattern, replacement in (_LFM2 if architecture == "lfm2" else _LLAMA).items():
            name = re.sub(pattern, replacement, name)
        if ".shortconv.conv." in name:
            writer.add_tensor(name, array.squeeze(1))
        elif array.ndim == 1 or kind == "F32":
            writer.add_tensor(name, array)
        else:
            form = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quantize(array, form), raw_dtype=form)
    for name, array in more.items():
        writer.add_tensor(f"{name}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    tokenizer = tiny.tokenizer()
    backend = tokenizer.backend_tokenizer
    names = {i: token for token, i in backend.get_vocab().items()}
    tokens = [names.get(i, f"<unused{i}>") for i in range(size)]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ċ", "Ċ"), ("Ġ", "t"), ("i", "n"), ("Ġ", "Ġ")]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 2 else 1 for i in range(size)])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(tiny.TEMPLATE)


def _interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """The order of llama.cpp, which turns neighbouring rows of a head together."""
    width = rows.shape[1]
    return rows.reshape(heads, 2, -1, width).swapaxes(1, 2).reshape(-1, width).copy()
