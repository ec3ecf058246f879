from __future__ import annotations

import json
import pickle
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from helpers import tiny_language_model as tiny
from lc_engine.language import pretrained
from lc_engine.language.model import LanguageModelSpec
from lc_engine.masking.masking import Masking

# 32 does not divide the 48 rows of the feed-forward layers.
BLOCK = 32


def loaded(path, dtype="float32"):
    return LanguageModelSpec(str(path), dtype).load()[0]


@pytest.fixture
def copy(folder, tmp_path):
    """A folder of the tiny model that a test may change."""
    return shutil.copytree(folder, tmp_path / "model")


def configure(path, **fields):
    """Write fields to a folder's config.json."""
    config = json.loads((path / "config.json").read_text()) | fields
    (path / "config.json").write_text(json.dumps(config))


def save(path, tensors):
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def scales(weight, form):
    """Random scales of a weight, and what each element is multiplied by."""
    rows, columns = weight.shape
    if form == "tensor":
        scale = torch.rand(()) + 0.01
        return scale, scale.expand(rows, columns)
    if form == "row":
        scale = torch.rand(rows, 1) + 0.01
        return scale, scale.expand(rows, columns)
    scale = torch.rand(-(-rows // BLOCK), -(-columns // BLOCK)) + 0.01
    index = torch.arange(rows)[:, None] // BLOCK, torch.arange(columns)[None] // BLOCK
    return scale, scale[index]


def quantize(path, form, dtype, suffix):
    """Store the projections in 8 bits, and return the weights that they stand for."""
    tensors, want = {}, {}
    for name, value in load_file(path / "model.safetensors").items():
        if "proj" not in name:
            tensors[name] = value
            continue
        scale, factor = scales(value, form)
        units = value / factor
        if dtype == torch.int8:
            units = (units * 20).round().clamp(-127, 127)
        tensors[name] = units.to(dtype)
        tensors[name + suffix] = scale
        want[name] = tensors[name].float() * factor
    save(path, tensors)
    return want


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
FORMATS = [
    ("block", torch.float8_e4m3fn, "_scale_inv", FP8 | {"weight_block_size": [BLOCK, BLOCK]}),
    ("block", torch.float8_e5m2, "_scale_inv", FP8 | {"weight_block_size": [BLOCK, BLOCK]}),
    ("tensor", torch.float8_e4m3fn, "_scale_inv", FP8 | {"weight_block_size": None}),
    ("tensor", torch.float8_e5m2, "_scale_inv", FP8 | {"weight_block_size": None}),
    ("row", torch.float8_e4m3fn, "_scale", {"quant_method": "fbgemm_fp8"}),
    ("tensor", torch.float8_e4m3fn, "_scale", {"quant_method": "modelopt"}),
    (
        "row",
        torch.float8_e4m3fn,
        "_scale",
        {"quant_method": "compressed-tensors", "format": "float-quantized"},
    ),
    (
        "row",
        torch.int8,
        "_scale",
        {"quant_method": "compressed-tensors", "format": "int-quantized"},
    ),
    ("tensor", torch.float8_e4m3fn, "_scale", None),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("form", "stored", "suffix", "config"), FORMATS)
def test_weights_in_8_bits_are_loaded_as_the_scaled_ones(copy, form, stored, suffix, config, dtype):
    want = quantize(copy, form, stored, suffix)
    if config is not None:
        configure(copy, quantization_config=config)
    model = loaded(copy, dtype)
    masked = Masking().find(model, "lm_head")
    assert masked.keys() == want.keys()
    for name, value in want.items():
        assert type(model.get_submodule(name.removesuffix(".weight"))) is torch.nn.Linear
        assert torch.equal(masked[name], value.to(getattr(torch, dtype))), name


def test_a_block_is_not_guessed_from_the_grid(copy):
    # transformers takes 48 rows in 2 blocks to be 24 + 24; they are 32 + 16.
    want = quantize(copy, "block", torch.float8_e4m3fn, "_scale_inv")
    configure(copy, quantization_config=FP8 | {"weight_block_size": [BLOCK, BLOCK]})
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(loaded(copy).get_parameter(name), want[name])
    configure(copy, quantization_config=FP8 | {"weight_block_size": [16, 16]})
    with pytest.raises(ValueError, match=r"which blocks of \(16, 16\) do not explain"):
        loaded(copy)


def test_experts_in_mxfp4_are_loaded_in_float(tmp_path):
    pytest.importorskip("torch", minversion="2.7", reason="transformers asks for its accelerator")
    config = GptOssConfig(
        vocab_size=270,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=2,
        num_experts_per_tok=1,
        max_position_embeddings=128,
    )
    made = GptOssForCausalLM(config)
    made.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    configure(tmp_path, quantization_config={"quant_method": "mxfp4"})
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    levels = torch.cat([levels, -levels])
    tensors, want = load_file(tmp_path / "model.safetensors"), {}
    for name in [n for n in tensors if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        codes = torch.randint(0, 16, (experts, outputs, inputs // 32, 32), dtype=torch.uint8)
        powers = torch.randint(120, 130, (experts, outputs, inputs // 32), dtype=torch.uint8)
        tensors[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
        tensors[f"{name}_scales"] = powers
        values = levels[codes.long()] * (powers.float() - 127).exp2()[..., None]
        want[name] = values.reshape(experts, outputs, inputs).transpose(1, 2)
    save(tmp_path, tensors)
    model = loaded(tmp_path)
    assert len(want) == 2
    for name, value in want.items():
        assert torch.equal(model.get_parameter(name), value), name


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "torchao"),
        ({"quant_method": "bitnet"}, "bitnet"),
        ({"quant_method": "of_next_year"}, "of_next_year"),
        ({"bits": 3}, "a method without a name"),
    ],
)
def test_other_quantizations_are_refused_by_name(copy, fields, name):
    configure(copy, quantization_config=fields)
    with pytest.raises(ValueError, match=f"are quantized with {name}, which cannot be undone"):
        loaded(copy)


def test_what_needs_a_package_that_is_missing_says_so(copy):
    fields = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    configure(copy, quantization_config=fields)
    with pytest.raises(ValueError, match=r"cannot be loaded .*compressed-tensors"):
        loaded(copy)


def test_shards_and_pickled_weights_are_read(copy, folder):
    want = loaded(folder).state_dict()
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = list(tensors)
    files = {}
    for i, part in enumerate((names[::2], names[1::2])):
        torch.save({name: tensors[name] for name in part}, copy / f"pytorch_model-{i}.bin")
        files |= dict.fromkeys(part, f"pytorch_model-{i}.bin")
    (copy / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    found = loaded(copy).state_dict()
    assert found.keys() == want.keys()
    assert all(torch.equal(found[name], want[name]) for name in want)


class Payload:
    def __reduce__(self):
        return (print, ("this must not run",))


@pytest.mark.parametrize("damage", ["cut", "header", "pickle", "cut bin", "none", "foreign"])
def test_damaged_weights_are_refused_by_the_name_of_the_file(copy, damage, capsys):
    file = copy / "model.safetensors"
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-7])
    elif damage == "header":
        file.write_bytes((1 << 40).to_bytes(8, "little") + content[8:])
    elif damage == "foreign":
        file.write_bytes(b"<html>not found</html>")
    else:
        file.unlink()
        file = copy / "pytorch_model.bin"
        torch.save({"a": torch.ones(9)}, file)
        if damage == "pickle":
            file.write_bytes(pickle.dumps({"a": Payload()}))
        elif damage == "cut bin":
            file.write_bytes(file.read_bytes()[:-40])
        else:
            file.unlink()
            file = copy
    with pytest.raises(ValueError, match="cannot be loaded as a causal language model") as error:
        loaded(copy)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["", "[1]", '{"a": ' + "9" * 401 + "}", '{"a": '])
def test_damaged_json_is_refused_by_the_name_of_the_file(copy, file, content):
    (copy / file).write_text(content)
    with pytest.raises(ValueError, match=f"cannot be loaded .*{file} ") as error:
        loaded(copy)
    assert "copy or download it again" in str(error.value)


def test_a_damaged_tokenizer_is_refused(copy):
    (copy / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ValueError, match=r"cannot be loaded .*tokenizer\.json"):
        loaded(copy)


def test_experts_in_float8_are_merged_as_the_scaled_ones(tmp_path):
    config = Qwen3MoeConfig(
        vocab_size=270,
        hidden_size=64,
        intermediate_size=48,
        moe_intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=3,
        num_experts_per_tok=2,
        max_position_embeddings=128,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    want = quantize(tmp_path, "block", torch.float8_e4m3fn, "_scale_inv")
    configure(tmp_path, quantization_config=FP8 | {"weight_block_size": [BLOCK, BLOCK]})
    model = loaded(tmp_path)
    prefix = "model.layers.0.mlp.experts"
    for expert in range(3):
        parts = [want[f"{prefix}.{expert}.{part}_proj.weight"] for part in ("gate", "up", "down")]
        gate_up = model.get_parameter(f"{prefix}.gate_up_proj")[expert]
        assert torch.equal(gate_up, torch.cat(parts[:2]))
        assert torch.equal(model.get_parameter(f"{prefix}.down_proj")[expert], parts[2])


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_only_the_weights_of_a_repository_are_fetched(tmp_path, monkeypatch, suffix):
    asked = []

    def fetch(name, allow_patterns, ignore_patterns):
        asked.append((name, allow_patterns[0], ignore_patterns))
        if allow_patterns[0] == f"*.{suffix}":
            (tmp_path / f"a.{suffix}").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert pretrained._folder("somebody/model") == tmp_path
    wanted = ["*.safetensors", "*.bin"][: 1 if suffix == "safetensors" else 2]
    assert asked == [("somebody/model", pattern, ["*/*"]) for pattern in wanted]
