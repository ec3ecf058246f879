"""Tiny models of images and text with seeded weights and their processors, and their plain loop."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from torch import nn

from helpers import tiny_language_model as tiny

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# As LLaVA 1.5's: all images of a turn come before its texts, and answers are marked.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] + ' ' }}"
    "{% endgeneration %}{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
)
# As Qwen2-VL's: parts where they stand, texts of turns too.
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '</s>\n' }}{% endfor %}"
)
# As SmolVLM's: parts only, and a space where a turn begins with a text.
SMOL_TEMPLATE = (
    "<s>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}"
)
# As Gemma 3's.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<start_of_image>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '</s>\n' }}{% endfor %}"
)
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "initializer_range": 0.2,
}


def tokenizer(special: Sequence[str]) -> Any:
    """Return the tokenizer of bytes, with further special tokens."""
    pytest.importorskip("transformers", minversion="5.24", reason="images want transformers 5.24")
    made = tiny.tokenizer(None)
    made.pad_token = "</s>"
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def llava() -> tuple[nn.Module, Any]:
    """Return a model like LLaVA 1.5: a CLIP tower, a projector, a Llama."""
    tokens = tokenizer(["<image>"])
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    processor = transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=tokens,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_VISION),
        text_config=transformers.LlamaConfig(**_TEXT, vocab_size=len(tokens)),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
    )
    return _made(transformers.LlavaForConditionalGeneration, config), processor


def qwen() -> tuple[nn.Module, Any]:
    """Return a model like Qwen2-VL: images of any size, positions in three dimensions."""
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokens = tokenizer(special)
    start, end, image, video = map(tokens.convert_tokens_to_ids, special)
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(
            patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 64 * 16}
        ),
        tokenizer=tokens,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=4, merge_size=2),
        chat_template=QWEN_TEMPLATE,
    )
    vision = {"embed_dim": 16, "hidden_size": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2VLConfig(
        vision_config=vision | {"patch_size": 4, "spatial_merge_size": 2},
        text_config=_TEXT | {"vocab_size": len(tokens), "rope_parameters": rope},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    return _made(transformers.Qwen2VLForConditionalGeneration, config), processor


def smol() -> tuple[nn.Module, Any]:
    """Return a model like SmolVLM and Idefics3: images in tiles, with texts between them."""
    rows = [f"<row_{i + 1}_col_{j + 1}>" for i in range(2) for j in range(2)]
    tokens = tokenizer(
        ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows]
    )
    processor = transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(
            size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
        ),
        tokenizer=tokens,
        image_seq_len=1,
        chat_template=SMOL_TEMPLATE,
    )
    config = transformers.Idefics3Config(
        vision_config=_VISION,
        text_config=transformers.LlamaConfig(**_TEXT, vocab_size=len(tokens)),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=1,
    )
    return _made(transformers.Idefics3ForConditionalGeneration, config), processor


def gemma() -> tuple[nn.Module, Any]:
    """Return a model like Gemma 3: sliding windows, and the tokens of an image see each other."""
    special = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokens = tokenizer(special)
    start, end, image = map(tokens.convert_tokens_to_ids, special)
    tokens.boi_token, tokens.eoi_token, tokens.image_token = special
    tokens.boi_token_id, tokens.image_token_id = start, image
    processor = transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokens,
        image_seq_length=4,
        chat_template=GEMMA_TEMPLATE,
    )
    text = {"vocab_size": len(tokens), "head_dim": 8, "query_pre_attn_scalar": 8}
    config = transformers.Gemma3Config(
        vision_config=_VISION,
        text_config=_TEXT | text | {"sliding_window": 16},
        image_token_index=image,
        boi_token_index=start,
        eoi_token_index=end,
        mm_tokens_per_image=4,
    )
    return _made(transformers.Gemma3ForConditionalGeneration, config), processor


FAMILIES = {"llava": llava, "qwen": qwen, "smol": smol}


def _made(kind: Any, config: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = kind(config).eval()
    return model


def picture(seed: int, width: int = 50, height: int = 40) -> PIL.Image.Image:
    """Return a seeded picture."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BICUBIC)


def save(folder: Path, family: str) -> str:
    """Write a model and its processor to a folder, as `save_pretrained` does."""
    model, processor = FAMILIES[family]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def plain_loop(
    model: Any, rows: Sequence[tuple[dict[str, Any], Sequence[int]]], capacities: Sequence[float]
) -> torch.Tensor:
    """Return the mean NLL (K, M) in float64: a row at a time, whole forwards, nothing shared.

    Args:
        model: of which the linear layers of the decoder are masked, each by its own threshold.
        rows: what the processor returned, with tensors, and the positions of the response tokens.
        capacities: K.
    """
    model = copy.deepcopy(model).double().eval()
    weights = [m.weight for m in model.get_decoder().modules() if isinstance(m, nn.Linear)]
    pristine = [weight.detach().clone() for weight in weights]
    found = torch.zeros(len(capacities), len(rows), dtype=torch.float64)
    with torch.no_grad():
        for k, capacity in enumerate(capacities):
            for weight, whole in zip(weights, pristine, strict=True):
                count = round(capacity * whole.numel())
                bound = whole.abs().flatten().sort(descending=True).values[count - 1]
                weight.copy_(torch.where(whole.abs() >= bound, whole, 0))
            for m, (inputs, counted) in enumerate(rows):
                given = {
                    name: value.double() if value.is_floating_point() else value
                    for name, value in inputs.items()
                }
                log_p = model(**given).logits[0].log_softmax(-1)
                ids = inputs["input_ids"][0]
                found[k, m] = -sum(log_p[t - 1, ids[t]] for t in counted) / len(counted)
    return found
